"""DPO and REBEL against their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from rlgf.objectives import losses


def test_dpo_equals_its_formula() -> None:
    ratios = torch.tensor([[0.5, -1.0], [-2.0, 1.0], [0.3, 0.3]])
    loss, metrics = losses.dpo(ratios, 5.0, 0.4)
    margins = [0.4 * (a - b) for a, b in ratios.tolist()]
    assert loss.item() == pytest.approx(sum(math.log(1 + math.exp(-m)) for m in margins) / 5)
    assert metrics["margin"].item() == pytest.approx(sum(margins) / 5)
    assert metrics["pair_accuracy"].item() == pytest.approx(1 / 5)


def test_dpo_of_an_unchanged_policy_is_log_2() -> None:
    loss, metrics = losses.dpo(torch.zeros(4, 2), 4.0, 0.1)
    assert loss.item() == pytest.approx(math.log(2))
    assert metrics["pair_accuracy"].item() == 0


def test_rebel_equals_its_formula() -> None:
    ratios, difference = torch.tensor([[0.5, -1.0], [-2.0, 1.0]]), torch.tensor([0.7, 2.0])
    loss, metrics = losses.rebel(ratios, difference, 3.0, 0.5)
    assert loss.item() == pytest.approx(((0.5 * 1.5 - 0.7) ** 2 + (-0.5 * 3 - 2.0) ** 2) / 3)
    assert metrics["margin"].item() == pytest.approx((0.75 - 1.5) / 3)
    assert metrics["pair_accuracy"].item() == pytest.approx(1 / 3)


def test_rebel_is_0_where_the_policy_moved_by_the_rewards_alone() -> None:
    """The fixed point of the regression: pi proportional to old * exp(eta R)."""
    rewards, eta = torch.tensor([[1.0, 0.2], [0.5, -3.0]]), 2.0
    loss, _ = losses.rebel(eta * rewards + 0.7, rewards[:, 0] - rewards[:, 1], 2.0, 1 / eta)
    assert loss.item() == pytest.approx(0, abs=1e-12)


def test_advantage_regression_equals_its_formula() -> None:
    mask = torch.tensor([[True, True, True], [True, False, False]])
    logprobs = torch.tensor([[-1.0, -2.0, -0.5], [-0.3, 9.0, 9.0]])
    reference = torch.tensor([[-1.5, -1.0, -2.0], [-0.1, -9.0, -9.0]])
    advantages = torch.tensor([[0.7] * 3, [-0.4, 5.0, 5.0]])
    loss = losses.advantage_regression(logprobs, reference, advantages, mask, 4.0, 0.5)
    assert loss.item() == pytest.approx(((0.5 * 1.0 - 0.7) ** 2 + (0.5 * -0.2 + 0.4) ** 2) / 4)


def test_advantage_regression_leaves_its_start() -> None:
    """There the gradient is that of -2 beta A log pi, and exactly 0 where the text earned what was expected."""
    logprobs = torch.tensor([[-1.0, -2.0], [-0.3, -0.2]], requires_grad=True)
    rounded = logprobs.detach() + torch.tensor([[2e-5, -3e-5], [-2e-5, -3e-5]])
    mask, advantages = torch.ones(2, 2, dtype=torch.bool), torch.tensor([[0.7, 0.7], [0.0, 0.0]])
    losses.advantage_regression(logprobs, rounded, advantages, mask, 1.0, 0.5).backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([[-0.7, -0.7], [0.0, 0.0]]))
