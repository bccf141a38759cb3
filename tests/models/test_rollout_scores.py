"""Scores of a rollout are those of its texts one by one, wherever its batches are cut."""

from __future__ import annotations

import pytest
import torch

from rlgf.models.critic import build_critic
from rlgf.models.rollout_scores import score_logprobs, score_values
from rlgf.models.sampling import Sampling
from toys import letter_gpt, written

POLICY = letter_gpt()
ROLLOUT = written("cda", "b", "", "dddd", "ab", prompts=["ab", "d", "abcd"])


def test_log_probabilities_are_those_of_each_text_alone() -> None:
    scores = score_logprobs(POLICY.model, ROLLOUT, Sampling(), [4], 10**6)
    assert scores[~ROLLOUT.response_mask].eq(0).all()
    for row, (prompt, length) in enumerate(zip(ROLLOUT.prompts, ROLLOUT.lengths.tolist(), strict=True)):
        before = torch.tensor(["abcd".index(letter) for letter in prompt])
        after = ROLLOUT.response_ids[row, :length]
        with torch.no_grad():
            logits = POLICY.model(torch.cat([before, after])[None]).logits[0, len(before) - 1 : -1]
        alone = logits.log_softmax(dim=-1).gather(1, after[:, None]).squeeze(1)
        torch.testing.assert_close(scores[row, :length], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["separate", "head"])
def test_neither_scores_nor_values_depend_on_where_batches_are_cut(kind: str) -> None:
    critic = build_critic(kind, POLICY.model)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter += 0.02
    most = [score_values(critic, POLICY.model, ROLLOUT, tokens) for tokens in (1, 12, 10**6)]
    assert most[0].abs().sum() > 0
    assert most[0][~ROLLOUT.response_mask].eq(0).all()
    for other in most[1:]:
        torch.testing.assert_close(other, most[0], atol=1e-5, rtol=1e-5)
