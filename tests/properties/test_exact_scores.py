"""The expected gradient of `opd` is minus that of the reverse KL at the states that the policy visits.

As in test_exact_gradients.py a batch is the distribution itself. The guide's tokens are the policy's, or pairs of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from test_exact_gradients import GUIDE, POLICY, REFERENCE, RESPONSES, likelihood, whole_distribution
from torch import Tensor

from rlgf.algorithms.imitation_rows import OPD
from rlgf.guides import LocalGuide, Piece, Request
from rlgf.learning.assessor import Assessor
from rlgf.learning.rates import UpdateConfig
from rlgf.learning.updater import Updater
from rlgf.models.sampling import Sampling
from rlgf.types import Completion
from toys import LENGTH, STATES, table_language_model


class Pairs:
    """The guide's table, of which the first two letters are one token."""

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        raise AssertionError("only asked for scores")

    def score(self, requests: Sequence[Request]) -> list[list[Piece]]:
        found = []
        for request in requests:
            ids = tuple("abc".index(letter) for letter in str(request.scored))
            first, last = likelihood(GUIDE, ids, 0, 2), likelihood(GUIDE, ids, 2, LENGTH)
            found.append([Piece(0, 2, float(first.log())), Piece(2, LENGTH, float(last.log()))])
        return found


def gradient(guide: object) -> Tensor:
    """The library's, summed over tokens and averaged over episodes."""
    policy = table_language_model(POLICY)
    assessor = Assessor(policy, table_language_model(REFERENCE), {}, None, Sampling(), 10**6, guide=guide)
    rollout = whole_distribution(OPD)
    experience = assessor.assess(rollout, OPD, 0.0)
    assert experience.scored.reference_logprobs is None
    updater = Updater(policy, {}, Sampling(), UpdateConfig(max_micro_tokens=10**6), seed=0)
    updater.backward(experience, OPD)
    found = policy.model.table.grad
    assert found is not None
    return found[:, :3] * LENGTH


def divergence(parts: Sequence[tuple[int, int]]) -> Tensor:
    """The gradient of the sum of KL(pi || guide) over the parts of a text, at states drawn from a policy that stays."""
    logits = POLICY.log().requires_grad_()
    moving = logits.softmax(dim=-1)
    total = torch.zeros(())
    for response in RESPONSES:
        for begin, end in parts:
            drawn = likelihood(POLICY, response, 0, begin) * likelihood(POLICY, response, end, LENGTH)
            own = likelihood(moving, response, begin, end)
            total = total + drawn * own * (own / likelihood(GUIDE, response, begin, end)).log()
    return torch.autograd.grad(total, logits)[0]


@pytest.mark.parametrize("pairs", [False, True])
def test_the_expected_gradient_is_that_of_the_reverse_kl(pairs: bool) -> None:
    guide = (
        Pairs() if pairs else LocalGuide(table_language_model(GUIDE), table_language_model(GUIDE).tokenizer, Sampling())
    )  # fmt: skip
    expected = divergence([(0, 2), (2, 3)] if pairs else [(0, 1), (1, 2), (2, 3)])
    assert expected.abs().max() > 0.05
    assert expected.shape == (len(STATES), 3)
    torch.testing.assert_close(gradient(guide), expected, atol=1e-5, rtol=1e-4)


def test_a_policy_that_writes_as_the_guide_is_left_alone() -> None:
    same = LocalGuide(table_language_model(POLICY), table_language_model(POLICY).tokenizer, Sampling())
    assert not gradient(same).any()


def test_a_guide_says_when_to_end_by_what_it_says_of_all_else() -> None:
    """No text says how probable its end is. What is left of the guide's probability is that of the end, and the policy
    that is left alone everywhere else has just that."""
    guide = torch.tensor([0.5, 0.2, 0.3])  # The last is the end.
    policy = torch.tensor([0.2, 0.2, 0.6]).log().requires_grad_()
    for _ in range(3000):
        logprobs = policy.log_softmax(dim=-1)
        advantage = torch.cat([guide[:2].log() - logprobs[:2], torch.zeros(1)]).detach()
        (step,) = torch.autograd.grad((logprobs.exp().detach() * advantage * logprobs).sum(), policy)
        policy = (policy + 0.5 * step).detach().requires_grad_()
    torch.testing.assert_close(policy.softmax(dim=-1), guide, atol=1e-3, rtol=0)
