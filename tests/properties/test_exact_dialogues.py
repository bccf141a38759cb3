"""Of a dialogue the gradient is that of the turns: replies are states that a turn leads to, which no term reads.

The second of the three tokens is the environment's, which answers each first token in a way of its own.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from enumerated import (
    ANY_VALUES,
    KL,
    POLICY,
    REFERENCE,
    expected_gradient,
    gradient_of,
    rollout_of,
    score,
)
from torch import Tensor

from rlgf.algorithms.base_rows import VINE_PPO
from rlgf.algorithms.catalog import PPO, RLOO
from rlgf.rollout.state_values import branch_points
from rlgf.rollout.writers import Draft
from rlgf.types import Author, Rollout, Sample
from toys import state_index

REPLIES = (2, 0, 1)
"""To each first token."""
EPISODES = [(first, REPLIES[first], last) for first, last in itertools.product(range(3), repeat=2)]


def chance(probabilities: Tensor, episode: tuple[int, int, int]) -> Tensor:
    first, _, last = episode
    return probabilities[0, first] * probabilities[state_index(episode[:2]), last]


def pay(probabilities: Tensor, episode: tuple[int, int, int], start: int) -> Tensor:
    """The reward less the KL penalty of the turns from one on."""
    total = torch.tensor(score(episode))
    for position in (0, 2)[start:]:
        at = state_index(episode[:position]), episode[position]
        total = total - KL * (probabilities[at].log() - REFERENCE[at].log())
    return total


def objective(probabilities: Tensor) -> Tensor:
    paid = [chance(probabilities, e) * pay(probabilities, e, 0) for e in EPISODES]
    return torch.stack(paid).sum()


def exact_values() -> Tensor:
    """Of the states before turns; before a reply stands a number that must not count."""
    values = torch.full_like(ANY_VALUES, 99.0)
    values[0] = objective(POLICY)
    for first in range(3):
        state = state_index((first, REPLIES[first]))
        ends = [(first, REPLIES[first], last) for last in range(3)]
        values[state] = torch.stack([POLICY[state, e[2]] * pay(POLICY, e, 1) for e in ends]).sum()
    return values


def draft(episode: tuple[int, int, int]) -> Draft:
    made = Draft(Sample(""), [3], seed=0)
    made.ids = list(episode)
    made.authors = [Author.POLICY, Author.ENVIRONMENT, Author.POLICY]
    made.logprobs = [float(POLICY[state_index(episode[:t]), episode[t]].log()) for t in range(3)]
    made.logprobs[1] = 0.0
    return made


def distribution() -> Rollout:
    """Each episode as often in 16 as it is likely."""
    return rollout_of([draft(e) for e in EPISODES for _ in range(round(16 * float(chance(POLICY, e))))])


@pytest.mark.parametrize(
    ("gae_lambda", "values"),
    [(1.0, ANY_VALUES), (0.3, exact_values()), (0.0, exact_values())],
    ids=["lambda 1, any critic", "lambda 0.3, exact critic", "lambda 0, exact critic"],
)
def test_ppo_follows_the_gradient_over_turns(gae_lambda: float, values: Tensor) -> None:
    row = PPO.model_copy(update={"gae_lambda": gae_lambda, "whiten": False})
    found = expected_gradient(row, distribution(), values)
    torch.testing.assert_close(found, gradient_of(objective), atol=1e-5, rtol=1e-4)


def test_rloo_follows_the_gradient_over_turns() -> None:
    """Over all pairs of episodes, each as often as it is likely."""
    often = {e: round(16 * float(chance(POLICY, e))) for e in EPISODES}
    pairs = [(a, b) for a, b in itertools.product(EPISODES, repeat=2) for _ in range(often[a] * often[b])]
    drafts = [draft(e) for pair in pairs for e in pair]
    rollout = rollout_of(drafts, [number // 2 for number in range(len(drafts))])
    row = RLOO.model_copy(update={"whiten": False, "group_size": 2})
    found = expected_gradient(row, rollout)
    torch.testing.assert_close(found, gradient_of(objective), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("every", [1, 2])
def test_vineppo_follows_the_gradient_over_turns(every: int) -> None:
    """A turn's advantage is the value where the next one begins less that of its own beginning, without a penalty."""

    def paid(probabilities: Tensor) -> Tensor:
        return torch.stack([chance(probabilities, e) * score(e) for e in EPISODES]).sum()

    rollout = distribution()
    known = torch.full(rollout.response_ids.shape, torch.nan)
    for number, (first, reply, _) in enumerate(rollout.response_ids.tolist()):
        authors = [Author(author) for author in rollout.author[number].tolist()]
        for point in branch_points(authors, every, [0, 2]):
            ends = [(first, reply, last) for last in range(3)]
            at = state_index((first, reply))
            known[number, point] = (
                paid(POLICY) if point == 0 else torch.stack([POLICY[at, e[2]] * score(e) for e in ends]).sum()
            )
    found = expected_gradient(VINE_PPO, replace(rollout, branch_values=known), kl=0.0)
    exact = gradient_of(paid)
    assert exact.abs().max() > 0.01
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-4)
