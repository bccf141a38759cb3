"""Weights are read whole, or the model is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from saved_models import GPT2, loaded, saved
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPT2Model,
    PreTrainedModel,
)

from rlgf.errors import UserError


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
