"""Estimators of advantages, by name, against the functions that they call."""

from __future__ import annotations

from functools import partial
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch

from rlgf.algorithms import ESTIMATORS, Algorithm, Estimates, Estimator, Pairs, Signals, algorithm_from
from rlgf.objectives import advantages


@pytest.fixture
def signals() -> Signals:
    random = torch.Generator().manual_seed(0)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]], dtype=torch.bool)
    return Signals(
        token_rewards=torch.randn(4, 3, generator=random) * mask,
        rewards=torch.tensor([1.0, 0.5, -1.0, 2.5]),
        values=torch.randn(4, 3, generator=random),
        mask=mask,
        group=torch.tensor([1, 0, 1, 0]),
        gamma=0.9,
        gae_lambda=0.6,
        branch_values=torch.tensor([[0.5, nan, 2.0], [0.0, nan, 9.0], [0.25, nan, nan], [nan, 1.0, nan]]),
    )


def test_the_gae_estimator_is_gae_with_the_rows_numbers(signals: Signals) -> None:
    assert signals.values is not None
    wanted, returns = advantages.gae(signals.token_rewards, signals.values, signals.mask, 0.9, 0.6)
    found = ESTIMATORS["gae"].estimate(signals)
    assert isinstance(found, Estimates)
    assert found.returns is not None
    assert torch.equal(found.advantages, wanted)
    assert torch.equal(found.returns, returns)


def test_the_branched_estimator_compares_the_states_on_both_sides_of_a_token(signals: Signals) -> None:
    found = ESTIMATORS["branched"].estimate(signals)
    assert isinstance(found, Estimates)
    # A reward stands after the last state, also where the text ends before the next one; what stands before the
    # first state has no advantage.
    wanted = [[1.5, 1.5, -1.0], [0.5, 0.5, 0.0], [-1.25, 0.0, 0.0], [0.0, 1.5, 1.5]]
    assert found.advantages.tolist() == wanted


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("group_relative", advantages.group_relative),
        ("group_centred", partial(advantages.group_relative, scale=False)),
        ("leave_one_out", advantages.leave_one_out),
    ],
)
def test_a_group_estimator_gives_every_token_its_episodes_score(
    signals: Signals, name: str, score: Any
) -> None:
    found = ESTIMATORS[name].estimate(signals)
    assert isinstance(found, Estimates)
    wanted = score(signals.token_rewards.sum(dim=1), signals.group)
    assert wanted.all()
    for episode in range(4):
        for t in range(3):
            expected = wanted[episode].item() if signals.mask[episode, t] else 0.0
            assert found.advantages[episode, t].item() == pytest.approx(expected)
    assert found.returns is None


def test_your_own_estimator_is_named_by_file_and_attribute(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from rlgf.algorithms import Estimator\nhalf = Estimator(lambda s: s, grouped=True)\n")
    found = algorithm_from({"base": "grpo", "name": "mine", "advantage": f"{file}:half"})
    assert isinstance(found, Algorithm)
    assert isinstance(found.estimator, Estimator)
    assert found.grouped


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # The penalty turns the order of the first group around.
        ("preference", [(0, 1, 1.0), (4, 5, 1.0)]),
        ("reward_difference", [(2, 1, 1.5), (4, 5, 3.0)]),
        ("given_order", [(0, 2, 1.0), (3, 5, 1.0)]),
    ],
)
def test_an_estimator_picks_one_pair_of_each_group(name: str, expected: list[tuple[int, int, float]]) -> None:
    mask = torch.tensor([[1, 1], [1, 0]] * 3, dtype=torch.bool)
    signals = Signals(
        token_rewards=torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.5, 1.0], [0.0, 0.0], [1.0, 1.0], [-1.0, 0.0]]),
        rewards=torch.tensor([2.0, -0.5, 1.5, 0.0, 2.0, -1.0]),
        values=torch.zeros(6, 2),
        mask=mask,
        group=torch.tensor([0, 0, 0, 1, 1, 1]),
        gamma=1.0,
        gae_lambda=1.0,
    )
    found = ESTIMATORS[name].estimate(signals)
    assert isinstance(found, Pairs)
    made = zip(found.rows.tolist(), found.difference.tolist(), strict=True)
    assert [(better, worse, gap) for (better, worse), gap in made] == expected


def test_which_estimators_fit_a_critic_is_true() -> None:
    from rlgf.algorithms import Estimates, Signals

    ones = torch.ones(4, 3)
    scores = (ones, ones.long(), ones)
    signals = Signals(
        ones, ones[:, 0], ones, ones.bool(), torch.tensor([0, 0, 1, 1]), 1.0, 0.95, *scores, ones[:, 0], ones
    )
    for name, estimator in ESTIMATORS.items():
        found = estimator.estimate(signals)
        if isinstance(found, Estimates):
            assert estimator.returns == (found.returns is not None), name
