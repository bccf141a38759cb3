"""Experts take every token, so that a token's probability does not depend on those around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from saved_models import loaded, saved
from torch import Tensor
from transformers import (
    AutoModelForSeq2SeqLM,
    NllbMoeConfig,
    NllbMoeForConditionalGeneration,
    PreTrainedModel,
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
)

SWITCH: dict[str, Any] = {
    "vocab_size": 40,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 2,
    "num_experts": 2,
    "expert_capacity": 2,
    "num_sparse_encoder_layers": 1,
    "num_sparse_decoder_layers": 1,
    "decoder_start_token_id": 0,
    "num_decoder_layers": 2,
}
NLLB: dict[str, Any] = {
    "vocab_size": 40,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "num_experts": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_sparse_step": 1,
    "decoder_sparse_step": 1,
    "moe_eval_capacity_token_fraction": 0.2,
    "expert_capacity": 2,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 2,
}


@pytest.mark.parametrize(
    "made",
    [
        lambda: SwitchTransformersForConditionalGeneration(SwitchTransformersConfig(**SWITCH)),
        lambda: NllbMoeForConditionalGeneration(NllbMoeConfig(**NLLB)),
    ],
)
def test_no_token_is_turned_away(made: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = loaded(saved(made(), tmp_path / "start")).model
    prompt, text = torch.randint(3, 9, (1, 12)), torch.randint(3, 9, (1, 12))
    alone = _logits(model, prompt, text)
    beside = _logits(model, prompt.repeat(6, 1), text.repeat(6, 1))
    assert torch.allclose(beside, alone.expand_as(beside), atol=1e-3)
    padding = torch.full((1, 6), model.config.pad_token_id)
    mask = torch.cat([torch.zeros_like(padding), torch.ones_like(prompt)], dim=1)
    padded = _logits(model, torch.cat([padding, prompt], dim=1), text, attention_mask=mask)
    assert torch.allclose(padded, alone, atol=1e-3)
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(_logits(again, prompt, text), alone)


def _logits(model: PreTrainedModel, prompt: Tensor, text: Tensor, **more: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(input_ids=prompt, decoder_input_ids=text, use_cache=False, **more).logits
    return logits
