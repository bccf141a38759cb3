"""A model is read whole and tried out when it is loaded, or refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPT2Model,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
)

from architectures import small_tokenizer
from conftest import sharpen
from rlgf.errors import UserError
from rlgf.models.abilities import Abilities, abilities
from rlgf.models.generate import sample_continuations
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig, load_language_model
from rlgf.models.sampling import Sampling

BERT: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 32,
}
GPT2: dict[str, Any] = {"vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}


def saved(model: PreTrainedModel, folder: Path) -> Path:
    sharpen(model).save_pretrained(folder)
    small_tokenizer().save_pretrained(folder)
    return folder


def loaded(folder: Path) -> LanguageModel:
    return load_language_model(ModelConfig(model=str(folder)))


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


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    folder = saved(GPT2LMHeadModel(GPT2Config(**GPT2)), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_positions": 64}))
    with pytest.raises(UserError, match=r"'transformer.wpe.weight' has the shape \(32, 16\)"):
        loaded(folder)


@pytest.mark.parametrize("kind", [GPT2LMHeadModel, GPT2Model, GPT2ForSequenceClassification])
def test_a_head_that_is_tied_is_not_missing(kind: type[PreTrainedModel], tmp_path: Path) -> None:
    model = loaded(saved(kind(GPT2Config(**GPT2)), tmp_path)).model
    assert model.lm_head.weight is model.transformer.wte.weight


def test_an_ordinary_model_is_run_in_the_fastest_way(tmp_path: Path) -> None:
    assert abilities(loaded(saved(GPT2LMHeadModel(GPT2Config(**GPT2)), tmp_path)).model) == Abilities()


def test_an_id_without_a_token_is_never_written(tmp_path: Path) -> None:
    """Neither one after the tokenizer's last, nor one between, nor one that the model's files forbid."""
    model = GPT2LMHeadModel(GPT2Config(**GPT2))
    model.generation_config.bad_words_ids = [[5], [6, 7]]
    policy = loaded(saved(model, tmp_path))
    uniforms = torch.linspace(0, 0.999, 200)[:, None]
    written = sample_continuations(
        policy.model,
        [torch.tensor([3])] * 200,
        torch.ones(200, dtype=torch.long),
        uniforms,
        Sampling(temperature=100),
        (),
    )
    found = {int(one.token_ids[0]) for one in written}
    assert found == set(policy.tokenizer.get_vocab().values()) - {5}
