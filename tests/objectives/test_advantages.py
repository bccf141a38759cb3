"""Advantages against slow computations written without looking at the fast ones."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlgf.objectives.advantages import (
    adaptive_lambda,
    explained_variance,
    gae,
    importance_weights,
    rewarded_share,
    whiten,
)

NUMBERS = st.floats(-10, 10)
SHARES = st.floats(0, 1)
EPISODES = st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=6), min_size=1, max_size=4)
"""Rows of (reward, value) pairs of unequal length."""
Episodes = list[list[tuple[float, float]]]


def padded(episodes: Episodes, garbage: float = 0.0, extra: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, values and mask, with ``garbage`` at the padding and ``extra`` columns of it."""
    width = max(len(row) for row in episodes) + extra
    rewards = torch.full((len(episodes), width), garbage, dtype=torch.float64)
    values = torch.full_like(rewards, -garbage)
    mask = torch.zeros(len(episodes), width, dtype=torch.bool)
    for i, row in enumerate(episodes):
        for t, (reward, value) in enumerate(row):
            rewards[i, t], values[i, t], mask[i, t] = reward, value, True
    return rewards, values, mask


def slow_gae(row: list[tuple[float, float]], gamma: float, gae_lambda: float) -> list[float]:
    n = len(row)
    result = []
    for t in range(n):
        total = 0.0
        for k in range(t, n):
            next_value = row[k + 1][1] if k + 1 < n else 0.0
            total += (gamma * gae_lambda) ** (k - t) * (row[k][0] + gamma * next_value - row[k][1])
        result.append(total)
    return result


@given(EPISODES, SHARES, SHARES, st.integers(0, 2))
def test_gae_equals_the_double_sum_over_deltas(
    episodes: Episodes, gamma: float, gae_lambda: float, extra: int
) -> None:
    advantages, returns = gae(*padded(episodes, garbage=1e6, extra=extra), gamma, gae_lambda)
    for i, row in enumerate(episodes):
        slow = slow_gae(row, gamma, gae_lambda)
        assert advantages[i, : len(row)].tolist() == pytest.approx(slow, abs=1e-9)
        targets = [advantage + value for advantage, (_, value) in zip(slow, row, strict=True)]
        assert returns[i, : len(row)].tolist() == pytest.approx(targets, abs=1e-9)


def test_gae_of_an_episode_worked_by_hand() -> None:
    rewards, values = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[0.5, 1.0, -1.0]])
    # deltas: 1 + 0.5 - 0.5, 0 - 0.5 - 1, 2 + 1, with gamma 0.5; then lambda 0.5.
    advantages, returns = gae(rewards, values, torch.ones(1, 3, dtype=torch.bool), 0.5, 0.5)
    assert advantages.tolist() == [[1.0 + 0.25 * (-1.5 + 0.25 * 3.0), -1.5 + 0.25 * 3.0, 3.0]]
    assert returns.tolist() == [[0.8125 + 0.5, -0.75 + 1.0, 2.0]]


def test_the_adaptive_lambda_is_1_less_the_share_that_the_critic_foresaw() -> None:
    rewards = torch.tensor([[0.0, 0.0, 1.0], [0.0, 5.0, 9.0], [0.0, 0.0, -2.0]])
    mask = torch.tensor([[True, True, True], [True, False, False], [True, True, True]])
    earned = torch.tensor([1.0, 0.0, -2.0])[:, None].expand(3, 3)
    assert adaptive_lambda(rewards, earned, mask, 1.0) == pytest.approx(0)
    assert adaptive_lambda(rewards, earned / 2, mask, 1.0) == pytest.approx(1 - 0.75)
    # Nothing is foreseen, or the opposite, or there is nothing to foresee.
    assert adaptive_lambda(rewards, torch.full((3, 3), 4.0), mask, 1.0) == 1
    assert adaptive_lambda(rewards, -earned, mask, 1.0) == 1
    assert adaptive_lambda(torch.zeros(3, 3), earned, mask, 1.0) == 1


def test_explained_variance_is_1_for_a_perfect_critic_and_0_for_a_constant_one() -> None:
    returns = torch.tensor([0.0, 1.0, 3.0, 4.0])
    assert explained_variance(returns, returns) == pytest.approx(1)
    assert explained_variance(returns + 7, returns) == pytest.approx(1)
    assert explained_variance(torch.full((4,), 2.0), returns) == pytest.approx(0)
    assert explained_variance(-returns, returns) == pytest.approx(-3)
    # Of what does not vary there is nothing to explain.
    assert math.isnan(explained_variance(returns, torch.ones(4)))
    assert math.isnan(explained_variance(torch.ones(0), torch.ones(0)))


def test_the_rounding_of_returns_is_nothing_to_explain() -> None:
    """Ten texts that all earn 0.3: by a whole return that is the same number, but for what its sums lose."""
    values = torch.rand(10, 40, generator=torch.Generator().manual_seed(0))
    rewards = torch.zeros(10, 40)
    rewards[:, -1] = 0.3
    _, returns = gae(rewards, values, torch.ones(10, 40, dtype=torch.bool), 1.0, 1.0)
    assert returns.var() > 0
    assert math.isnan(explained_variance(values.flatten(), returns.flatten()))


@given(EPISODES, SHARES)
def test_gae_with_lambda_1_is_the_discounted_return_less_the_value(episodes: Episodes, gamma: float) -> None:
    advantages, returns = gae(*padded(episodes), gamma, 1.0)
    for i, row in enumerate(episodes):
        for t, (_, value) in enumerate(row):
            discounted = sum(gamma ** (k - t) * row[k][0] for k in range(t, len(row)))
            assert advantages[i, t].item() == pytest.approx(discounted - value, abs=1e-9)
            assert returns[i, t].item() == pytest.approx(discounted, abs=1e-9)


@given(EPISODES, SHARES)
def test_gae_with_lambda_0_is_the_one_step_delta(episodes: Episodes, gamma: float) -> None:
    advantages, _ = gae(*padded(episodes), gamma, 0.0)
    for i, row in enumerate(episodes):
        for t, (reward, value) in enumerate(row):
            next_value = row[t + 1][1] if t + 1 < len(row) else 0.0
            assert advantages[i, t].item() == pytest.approx(reward + gamma * next_value - value, abs=1e-9)


@given(EPISODES, st.floats(-1e12, 1e12), st.integers(0, 2))
def test_gae_does_not_read_padding(episodes: Episodes, garbage: float, extra: int) -> None:
    clean = gae(*padded(episodes, extra=extra), 0.9, 0.8)
    rewards, values, mask = padded(episodes, garbage, extra)
    dirty = gae(rewards, values, mask, 0.9, 0.8)
    for expected, actual in zip(clean, dirty, strict=True):
        assert torch.equal(expected, actual)
        assert not actual[~mask].any()


def test_gae_detaches_nothing() -> None:
    values = torch.zeros(1, 3, requires_grad=True)
    advantages, _ = gae(torch.ones(1, 3), values, torch.ones(1, 3, dtype=torch.bool), 0.5, 0.0)
    (gradient,) = torch.autograd.grad(advantages[0, 1], values)
    assert gradient.tolist() == [[0.0, -1.0, 0.5]]


@given(EPISODES, st.floats(-1e3, 1e3))
def test_whiten_gives_mean_0_and_variance_1_over_masked_tokens(episodes: Episodes, garbage: float) -> None:
    values, _, mask = padded(episodes, garbage, extra=1)
    white = whiten(values, mask)
    assert not white[~mask].any()
    kept = white[mask]
    spread = values[mask].std(unbiased=False)
    assert kept.mean().item() == pytest.approx(0, abs=1e-6)
    if spread > 1e-1:
        assert kept.var(unbiased=False).item() == pytest.approx(1, abs=1e-5)
        torch.testing.assert_close(kept, (values[mask] - values[mask].mean()) / spread, atol=1e-5, rtol=1e-5)


def test_whiten_does_not_read_what_is_masked() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    values = torch.tensor([[1.0, 2.0, 0.0], [6.0, 0.0, 0.0]])
    assert torch.equal(whiten(values.masked_fill(~mask, 1e18), mask), whiten(values, mask))


def test_whiten_of_one_token_or_none_is_0() -> None:
    values, mask = torch.tensor([[3.0, 5.0]]), torch.tensor([[True, False]])
    assert whiten(values, mask).tolist() == [[0.0, 0.0]]
    assert whiten(values, torch.zeros_like(mask)).tolist() == [[0.0, 0.0]]


@given(EPISODES, st.lists(NUMBERS, min_size=4, max_size=4))
def test_the_rewarded_share_is_the_spread_of_rewards_over_that_of_advantages(
    episodes: Episodes, rewards: list[float]
) -> None:
    advantages, _, mask = padded(episodes, garbage=1e6, extra=1)
    found = [advantage for row in episodes for advantage, _ in row]
    paid = [reward for reward, row in zip(rewards, episodes, strict=False) for _ in row]
    share = rewarded_share(advantages, torch.tensor(rewards[: len(episodes)], dtype=torch.float64), mask)
    if statistics.pstdev(paid) < 1e-9:
        assert share < 1e-6 or statistics.pstdev(found) < 1e-6
    elif statistics.pstdev(found) > 1e-9:
        assert share == pytest.approx(min(1, statistics.pstdev(paid) / statistics.pstdev(found)), rel=1e-6)


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, -1000.1])
def test_where_all_are_paid_alike_nothing_is_the_rewards(reward: float) -> None:
    advantages, mask = torch.randn(7, 5), torch.ones(7, 5, dtype=torch.bool)
    rewards = torch.full((7,), reward)
    assert rewarded_share(advantages, rewards, mask) == 0
    assert rewarded_share(0 * advantages, rewards, mask) == 0
    rewards[2] = rewards[2].nextafter(torch.tensor(-math.inf))
    assert rewarded_share(advantages, rewards, mask) < 1e-6
    assert rewarded_share(advantages, rewards, torch.zeros_like(mask)) == 0, "no token is read"


def test_one_text_of_112_that_is_paid_teaches_all_there_is_to_learn() -> None:
    """The critic has not learned anything yet, so that the advantages are the rewards."""
    rewards = torch.zeros(112)
    rewards[17] = 1.0
    mask = torch.ones(112, 48, dtype=torch.bool)
    rows = torch.zeros(112, 48)
    rows[:, -1] = rewards
    advantages, _ = gae(rows, torch.zeros_like(rows), mask, 1.0, 0.95)
    assert rewarded_share(advantages, rewards, mask) == 1
    assert rewarded_share(advantages, rewards + 5, mask) == pytest.approx(1, rel=1e-5)
    # Nine tenths of what a critic of no use adds are not scaled up.
    noise = torch.randn(112, 48, generator=torch.Generator().manual_seed(0))
    assert rewarded_share(noise, rewards, mask) == pytest.approx(0.094, abs=0.005)


@pytest.mark.parametrize("scale", [1e-3, 3.0, 1e4])
def test_the_unit_of_rewards_does_not_matter(scale: float) -> None:
    random = torch.Generator().manual_seed(1)
    advantages, rewards = torch.randn(9, 5, generator=random), 0.3 * torch.randn(9, generator=random)
    mask = torch.rand(9, 5, generator=random) < 0.7
    share = rewarded_share(advantages, rewards, mask)
    assert 0 < share < 1
    assert rewarded_share(scale * advantages, scale * rewards, mask) == pytest.approx(share, rel=1e-5)
    assert rewarded_share(advantages, rewards + 2, mask) == pytest.approx(share, rel=1e-4)


def test_weighted_means_under_the_engine_are_means_under_the_policy() -> None:
    """Over a vocabulary of five, summed up whole: ``sum_y e(y) w(y) f(y)``; with a bound it is ``min(p, bound e)``."""
    random = torch.Generator().manual_seed(0)
    p, e = torch.randn(2, 1, 5, generator=random).softmax(-1)
    values = torch.randn(1, 5, generator=random)
    for bound, expected in ((1e9, p), (1.2, torch.minimum(p, 1.2 * e))):
        weights = importance_weights(p.log(), e.log(), bound)
        torch.testing.assert_close((e * weights * values).sum(), (expected * values).sum())
    assert (p > 1.2 * e).any()
