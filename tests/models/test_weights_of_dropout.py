"""A policy has no dropout."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from finite_runs import trainer
from rlgf.models.language_model import LanguageModel
from toys import letter_gpt


def test_a_policy_given_in_training_mode_has_no_dropout(tmp_path: Path) -> None:
    start = letter_gpt()
    rates = {"attn_pdrop": 0.3, "resid_pdrop": 0.3, "embd_pdrop": 0.3}
    config = GPT2Config(**{**start.model.config.to_dict(), **rates})
    for restless in (False, True):
        model = GPT2LMHeadModel(config)
        model.load_state_dict(start.model.state_dict())
        if restless:
            # As models do whose forward pass sets the mode.
            model.register_forward_pre_hook(lambda module, given: module.train() and None)
        run = trainer(tmp_path / f"restless {restless}", policy=LanguageModel(model.train(), start.tokenizer))
        assert run.evaluate(split="validation").totals["kl"] == pytest.approx(0, abs=1e-6)
        assert run.step()["kl"] == pytest.approx(0, abs=1e-6)
        assert model.config.resid_pdrop == 0.3, "what is saved stays as it was given"
