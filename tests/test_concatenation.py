"""Shares of a batch become the whole."""

from __future__ import annotations

import pytest
import torch

from rlgf import Author
from rlgf.concatenation import concatenate
from rlgf.types import Scored
from toys import written
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


def test_records_of_unequal_width_are_padded_on_their_own_sides() -> None:
    wide, narrow = Scored(written("ccc", prompts=["abcd"])), Scored(written("d", prompts=["a"]))
    joined = concatenate([narrow, wide]).rollout
    assert joined.prompt_mask.tolist() == [[False, False, False, True], [True, True, True, True]]
    assert joined.lengths.tolist() == [2, 4]
    assert joined.author[0].tolist() == [Author.POLICY, Author.POLICY, Author.NOBODY, Author.NOBODY]


def test_a_term_that_one_record_lacks_is_nan_there() -> None:
    joined = concatenate([Scored(written("c"), reward_terms={"t": torch.ones(1)}), Scored(written("d"))])
    assert joined.reward_terms["t"][0] == 1
    assert joined.reward_terms["t"][1].isnan()
