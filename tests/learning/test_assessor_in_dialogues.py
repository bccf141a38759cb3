"""Tokens of an environment are part of a state, and no step: estimates are those of the episode without them. What an
estimator of one's own returns is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlgf.algorithms import ESTIMATORS, Estimates, Estimator, Pairs, Signals
from rlgf.learning.assessor import estimated
from toys import sentence_of

MASK = torch.tensor(
    [
        [1, 1, 0, 0, 1, 1, 0, 1],  # two replies within
        [1, 0, 0, 1, 0, 0, 0, 0],  # a reply, then padding
        [1, 1, 1, 1, 1, 1, 1, 1],  # none
    ]
).bool()


@pytest.fixture
def signals() -> Signals:
    noise = torch.Generator().manual_seed(0)
    numbers = torch.randn(3, 8, generator=noise)
    return Signals(
        token_rewards=torch.where(MASK, numbers, 0.0),
        rewards=torch.tensor([1.0, 0.0, 2.0]),
        values=torch.randn(3, 8, generator=noise),
        branch_values=torch.rand(3, 8, generator=noise).masked_fill(~MASK, torch.nan),
        mask=MASK,
        group=torch.tensor([0, 0, 0]),
        gamma=0.9,
        gae_lambda=0.7,
    )


@pytest.mark.parametrize("name", ["gae", "group_relative", "group_centred", "leave_one_out", "branched"])
def test_they_are_those_of_each_episode_without_them(signals: Signals, name: str) -> None:
    estimator = ESTIMATORS[name]
    found = estimated(estimator, signals)
    assert isinstance(found, Estimates)

    def without(values: Tensor) -> Tensor:
        rows = [row[mask] for row, mask in zip(values, MASK, strict=True)]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

    assert signals.values is not None
    assert signals.branch_values is not None
    alone = estimator.estimate(
        replace(
            signals,
            token_rewards=without(signals.token_rewards),
            values=without(signals.values),
            branch_values=without(signals.branch_values),
            mask=without(MASK),
        )
    )
    assert isinstance(alone, Estimates)
    for row, mask in enumerate(MASK):
        count = int(mask.sum())
        torch.testing.assert_close(found.advantages[row][mask], alone.advantages[row, :count])
        assert not found.advantages[row][~mask].any()
        if alone.returns is not None:
            assert found.returns is not None
            torch.testing.assert_close(found.returns[row][mask], alone.returns[row, :count])


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        (lambda s: s.rewards[:, None] * s.mask, "a tensor of (3, 8)"),
        (lambda s: Estimates(s.rewards[:, None]), "a tensor of (3, 1)"),
        (lambda s: None, "None"),
    ],
)
def test_what_an_own_estimator_returns_is_looked_at(
    signals: Signals, returned: Callable[[Signals], Any], shown: str
) -> None:
    said = sentence_of(lambda: estimated(Estimator(returned), signals))
    assert f"the estimator of 'algorithm.advantage' returned {shown}: it must return Pairs, or Est" in said
    assert "each a tensor of (3, 8), a number for each token." in said


def test_a_critic_needs_returns(signals: Signals) -> None:
    told = Estimates(signals.token_rewards)
    said = sentence_of(lambda: estimated(Estimator(lambda s: told), signals))
    assert "returned no returns, and the row has a critic to learn them" in said
    assert estimated(Estimator(lambda s: told), replace(signals, values=None))
    assert estimated(Estimator(lambda s: told, returns=False), signals), (
        "a critic that learns from something else"
    )


def test_pairs_are_of_whole_episodes(signals: Signals) -> None:
    found = estimated(ESTIMATORS["reward_difference"], signals)
    plain = ESTIMATORS["reward_difference"].estimate(signals)
    assert isinstance(found, Pairs)
    assert isinstance(plain, Pairs)
    assert torch.equal(found.rows, plain.rows)
    torch.testing.assert_close(found.difference, plain.difference)
