"""Advantages of episodes that are compared with their group, against slow computations."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlgf.objectives.advantages import best_and_worst, group_relative, leave_one_out, optimal_value

NUMBERS = st.floats(-10, 10)
GROUPED_SCORES = st.lists(st.tuples(st.sampled_from([-3, 0, 2, 7]), NUMBERS), min_size=1, max_size=12)
"""Pairs of group and score, groups in any order."""
Estimate = Callable[[Tensor, Tensor], Tensor]


def split(pairs: list[tuple[int, float]]) -> tuple[Tensor, Tensor]:
    groups, scores = zip(*pairs, strict=True)
    return torch.tensor(scores, dtype=torch.float64), torch.tensor(groups)


@given(GROUPED_SCORES)
def test_group_relative_equals_a_loop_over_groups(pairs: list[tuple[int, float]]) -> None:
    scores, groups = split(pairs)
    scaled, centred = group_relative(scores, groups), group_relative(scores, groups, scale=False)
    for i, (group, score) in enumerate(pairs):
        members = [s for g, s in pairs if g == group]
        difference, spread = score - statistics.fmean(members), statistics.pstdev(members)
        assert centred[i].item() == pytest.approx(difference, abs=1e-9)
        if spread > 1e-4:
            assert scaled[i].item() == pytest.approx(difference / spread, rel=1e-1 if spread < 1e-2 else 1e-3)


def test_group_relative_of_two_groups_worked_by_hand() -> None:
    scores = torch.tensor([1.0, 10.0, 3.0, 10.0, 40.0])
    groups = torch.tensor([5, 2, 5, 2, 2])
    assert group_relative(scores, groups, scale=False).tolist() == [-1.0, -10.0, 1.0, -10.0, 20.0]
    spread = math.sqrt(200)
    expected = [-1.0, -10 / spread, 1.0, -10 / spread, 20 / spread]
    assert group_relative(scores, groups).tolist() == pytest.approx(expected, abs=1e-5)


@given(GROUPED_SCORES)
def test_leave_one_out_equals_a_loop_over_the_others(pairs: list[tuple[int, float]]) -> None:
    advantages = leave_one_out(*split(pairs))
    for i, (group, score) in enumerate(pairs):
        others = [s for j, (g, s) in enumerate(pairs) if g == group and j != i]
        expected = score - statistics.fmean(others) if others else 0.0
        assert advantages[i].item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("estimate", [group_relative, leave_one_out])
def test_a_group_of_one_has_no_advantage(estimate: Estimate) -> None:
    advantages = estimate(torch.tensor([4.0, 1.0, 2.0]), torch.tensor([9, 3, 3]))
    assert advantages[0] == 0
    assert advantages[1] < 0 < advantages[2]


@pytest.mark.parametrize("estimate", [group_relative, leave_one_out])
@pytest.mark.parametrize("score", [0.0, 1.0, -0.5, 0.25])
def test_a_constant_group_has_no_advantage(estimate: Estimate, score: float) -> None:
    scores, groups = torch.full((7,), score), torch.zeros(7, dtype=torch.long)
    assert estimate(scores, groups).tolist() == [0.0] * 7


@pytest.mark.parametrize("estimate", [group_relative, leave_one_out])
@pytest.mark.parametrize(("score", "size"), [(100.1, 7), (-33.3, 10), (1000.1, 3), (0.1, 7)])
def test_a_constant_group_has_no_advantage_where_the_mean_is_rounded(
    estimate: Estimate, score: float, size: int
) -> None:
    scores, groups = torch.full((size,), score), torch.zeros(size, dtype=torch.long)
    assert not estimate(scores, groups).any()
    scores[0] = scores[0].nextafter(torch.tensor(math.inf))
    assert not estimate(scores, groups).any(), "one unit in the last place is rounding too"


@pytest.mark.parametrize("estimate", [group_relative, leave_one_out])
@given(pairs=GROUPED_SCORES, shifts=st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS))
def test_shifting_a_groups_rewards_changes_nothing(
    estimate: Estimate, pairs: list[tuple[int, float]], shifts: tuple[float, ...]
) -> None:
    scores, groups = split(pairs)
    scores = (scores * 8).round() / 8
    by_group = dict(zip([-3, 0, 2, 7], shifts, strict=True))
    shifted = scores + torch.tensor([round(by_group[g] * 8) / 8 for g, _ in pairs], dtype=torch.float64)
    torch.testing.assert_close(estimate(shifted, groups), estimate(scores, groups), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("estimate", [group_relative, leave_one_out])
@given(pairs=GROUPED_SCORES, random=st.randoms(use_true_random=False))
def test_the_order_of_episodes_does_not_matter(
    estimate: Estimate, pairs: list[tuple[int, float]], random: Random
) -> None:
    order = list(range(len(pairs)))
    random.shuffle(order)
    straight = estimate(*split(pairs))
    shuffled = estimate(*split([pairs[i] for i in order]))
    torch.testing.assert_close(shuffled, straight[order], atol=1e-6, rtol=1e-6)


def test_best_and_worst_equals_a_loop_over_groups() -> None:
    random = torch.Generator().manual_seed(0)
    groups = torch.tensor([7, 2, 7, 2, 7, 5, 2, 5, 9, 9])
    for _ in range(20):
        scores = torch.randint(0, 3, (10,), generator=random).float()
        expected = []
        for group in (2, 5, 7, 9):
            members = [i for i in range(10) if groups[i] == group]
            best, worst = (pick(members, key=lambda i: float(scores[i])) for pick in (max, min))
            if scores[best] > scores[worst]:
                expected.append([best, worst])
        assert best_and_worst(scores, groups).tolist() == expected


def test_groups_that_scored_alike_make_no_pairs() -> None:
    assert best_and_worst(torch.ones(4), torch.tensor([0, 0, 1, 1])).shape == (0, 2)


def test_the_optimal_value_lies_between_the_mean_and_the_best() -> None:
    rewards = torch.tensor([[0.0, 1.0, 0.25], [0.3, 0.3, 0.3]], dtype=torch.float64)
    means = (rewards / 0.5).exp().mean(dim=1)
    torch.testing.assert_close(optimal_value(rewards, 0.5), 0.5 * means.log())
    assert optimal_value(rewards, 0.5)[1] == 0.3, "where all earn the same it is exactly that"
    assert optimal_value(rewards, 1e6)[0].item() == pytest.approx(1.25 / 3, abs=1e-5)
    assert optimal_value(1000 * rewards, 1e-3)[0].item() == pytest.approx(1000, abs=0.01)
