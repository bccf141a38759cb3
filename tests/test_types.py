"""The records that pass between the parts of the library."""

from __future__ import annotations

import pytest
import torch

from rlgf.types import concatenate
from training_toys import ROWS, build, experience_of


@pytest.mark.parametrize("name", ["guided-grpo", "guided-rebel", "hinted-grpo"])
def test_concatenated_shares_are_the_whole(name: str) -> None:
    trainer = build(name)
    whole = experience_of(trainer, ROWS[name]).scored
    rows = torch.arange(len(whole))
    again = concatenate([whole[rows[:4]], whole[rows[4:]]])
    assert torch.equal(again.rollout.response_ids, whole.rollout.response_ids)
    for tensor, joined in (
        (whole.reference_logprobs, again.reference_logprobs),
        (whole.old_logprobs, again.old_logprobs),
        (whole.unhinted_reference_logprobs, again.unhinted_reference_logprobs),
        (whole.rollout.bare_ids, again.rollout.bare_ids),
    ):
        assert (tensor is None and joined is None) or torch.equal(joined, tensor)
    assert again.rollout.texts == whole.rollout.texts
    assert torch.equal(again.rollout.group, whole.rollout.group)
