"""Weights are read whole, or the model is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPT2Model,
    PreTrainedModel,
)

from architectures import small_tokenizer
from conftest import sharpen
from rlgf.errors import UserError
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig, load_language_model

GPT2: dict[str, Any] = {"vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}


def saved(model: PreTrainedModel, folder: Path) -> Path:
    sharpen(model).save_pretrained(folder)
    small_tokenizer().save_pretrained(folder)
    return folder


def loaded(folder: Path) -> LanguageModel:
    return load_language_model(ModelConfig(model=str(folder)))


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
