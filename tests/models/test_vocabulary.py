"""Only tokens that the tokenizer has are written."""

from __future__ import annotations

from pathlib import Path

import torch
from saved_models import GPT2, loaded, saved
from transformers import GPT2Config, GPT2LMHeadModel

from rlgf.models.generate import sample_continuations
from rlgf.models.sampling import Sampling


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
