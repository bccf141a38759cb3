"""A model is read whole when it is loaded, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from saved_models import loaded, saved
from transformers import (
    AutoConfig,
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    EncoderDecoderConfig,
    LEDConfig,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
)

from rlgf.errors import UserError
from rlgf.models.loading import _COUNTED_FROM_PADDING, ModelConfig, context_of, load_model_config

BERT: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 32,
}


@pytest.mark.parametrize("kind", [*sorted(_COUNTED_FROM_PADDING), "bert", "gpt2", "opt"])
def test_a_context_is_what_the_positions_are_enough_for(kind: str) -> None:
    config = AutoConfig.for_model(kind)
    small = {
        **BERT,
        "max_position_embeddings": 12,
        "pad_token_id": 1,
        "ffn_dim": 16,
        "word_embed_proj_dim": 16,
    }
    of_some = {"attention_window": [4], "languages": ("en",), "default_language": "en"}
    for name, value in {**small, **of_some, "entity_vocab_size": 4, "entity_emb_size": 4}.items():
        if hasattr(config, name):
            setattr(config, name, value)
    model, context = AutoModel.from_config(config).eval(), context_of(config)
    assert context is not None
    model(input_ids=torch.full((1, context), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, context + 1), 5))


def test_an_encoder_and_its_decoder_have_contexts_of_their_own() -> None:
    sides = (BertConfig(**BERT), BertConfig(**{**BERT, "max_position_embeddings": 16}, is_decoder=True))
    pair = EncoderDecoderConfig.from_encoder_decoder_configs(*sides)
    led = LEDConfig(max_encoder_position_embeddings=32, max_decoder_position_embeddings=16)
    for config in (pair, led):
        assert (context_of(config, encoder=True), context_of(config)) == (32, 16)


def test_a_context_ends_where_the_positions_of_longrope_change(tmp_path: Path) -> None:
    """From there on the first tokens of a text have other probabilities than they were drawn with."""
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 16}
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Phi3ForCausalLM(
            Phi3Config(
                **sizes,
                vocab_size=40,
                max_position_embeddings=64,
                original_max_position_embeddings=16,
                rope_parameters=rope,
                pad_token_id=0,
            )
        ).eval()
    saved(model, tmp_path)
    assert context_of(load_model_config(ModelConfig(model=str(tmp_path)))) == 16
    ids = torch.randint(40, (1, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        texts = [model(input_ids=ids[:, :length]).logits[:, :8] for length in (8, 16, 17)]
    torch.testing.assert_close(texts[0], texts[1])
    assert not torch.allclose(texts[0], texts[2], atol=1e-3)


def no_start() -> PreTrainedModel:
    model = T5ForConditionalGeneration(
        T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    )
    model.generation_config.decoder_start_token_id = model.generation_config.bos_token_id = None
    return model


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: BertModel(BertConfig(**BERT)), "has no weights for 'cls.predictions"),
        (lambda: BertForMaskedLM(BertConfig(**BERT)), "sees the tokens that follow"),
        (
            lambda: ViTModel(ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)),
            "writes no text",
        ),
        (no_start, "does not say how its decoder starts"),
    ],
    ids=["encoder", "masked", "images", "no start"],
)
def test_what_cannot_write_is_refused(
    make: Callable[[], PreTrainedModel], sentence: str, tmp_path: Path
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
    with pytest.raises(UserError, match=sentence):
        loaded(saved(model, tmp_path))
