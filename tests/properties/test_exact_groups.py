"""Advantages within groups follow the exact gradient of their objectives, see `enumerated`."""

from __future__ import annotations

import itertools

import pytest
import torch
from enumerated import (
    GUIDE,
    KL,
    POLICY,
    RESPONSES,
    expected_gradient,
    gradient_of,
    likelihood,
    objective,
    paid_alike,
    pairs,
    penalized,
    reward,
    table,
    total_divergence,
    total_kl,
)
from torch import Tensor

from rlgf.algorithms import ALGORITHMS, Algorithm
from rlgf.algorithms.catalog import RLOO
from toys import LENGTH


@pytest.mark.parametrize("name", ["rloo", "guided-rloo"])
def test_rloo_follows_the_gradient_of_its_objective(name: str) -> None:
    row = ALGORITHMS[name]
    assert isinstance(row, Algorithm)
    found = expected_gradient(row, pairs(row))
    torch.testing.assert_close(found, gradient_of(objective(row, KL)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["grpo", "guided-grpo"])
def test_grpo_pushes_the_better_of_two_up_and_the_other_down(name: str) -> None:
    """In a group of two the advantage is +1 and -1, and 0 where the rewards are equal; the penalty is apart."""
    row = ALGORITHMS[name]
    assert isinstance(row, Algorithm)

    def surrogate(probabilities: Tensor) -> Tensor:
        total = torch.tensor(0.0)
        for switch in range(LENGTH) if row.script.rollin is not None else [0]:
            chance = 1.0 if row.script.rollin is None else 0.5 if switch == 0 else 0.25
            for one, other in itertools.product(RESPONSES, RESPONSES):
                if one[:switch] != other[:switch]:
                    continue
                start = likelihood(GUIDE, one, 0, switch)
                weight = chance * start
                ratio = torch.tensor(0.0)
                difference = penalized(POLICY, one, switch, 0.0) - penalized(POLICY, other, switch, 0.0)
                for response, sign in ((one, 1.0), (other, -1.0)):
                    weight = weight * likelihood(POLICY, response, switch, LENGTH)
                    log_likelihood = likelihood(probabilities, response, switch, LENGTH).log()
                    ratio = ratio + sign * difference.sign() * log_likelihood
                if difference.abs() > 1e-5:
                    total = total + weight * ratio / 2
        return total - KL * total_kl(row)(probabilities)

    found = expected_gradient(row, pairs(row))
    torch.testing.assert_close(found, gradient_of(surrogate), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("moved", [POLICY, table(1), table(3)], ids=["on policy", "moved", "moved elsewhere"])
@pytest.mark.parametrize("name", ["grpo", "guided-grpo"])
def test_grpo_is_held_by_the_kl_where_all_are_paid_alike(name: str, moved: Tensor) -> None:
    """Its penalty has the gradient of KL(policy || reference), wherever the policy has come to meanwhile."""
    row = ALGORITHMS[name]
    assert isinstance(row, Algorithm)
    found = expected_gradient(row, pairs(row), kl=1.0, pay=paid_alike, start=moved)
    exact = -gradient_of(total_kl(row), at=moved)
    assert exact.norm() > 0.1
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-4)
    # The estimator k3 has another gradient when it is differentiated alone.
    assert (exact + gradient_of(total_kl(row, forward=True), at=moved)).abs().max() > 1e-2


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_the_spread_of_rewards_does_not_weigh_grpos_penalty(scale: float) -> None:
    row = ALGORITHMS["grpo"]
    assert isinstance(row, Algorithm)

    def pay(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
        return [scale * r for r in reward(prompts, completions)]

    rollout = pairs(row)
    penalty = expected_gradient(row, rollout, kl=1.0, pay=pay) - expected_gradient(
        row, rollout, kl=0.0, pay=pay
    )
    torch.testing.assert_close(penalty, -gradient_of(total_kl(row)), atol=1e-4, rtol=1e-3)


def test_distillation_adds_to_a_reward() -> None:
    distill = {"loss": "distillation", "weight": 0.4, "options": {"jsd_beta": 0.3}}
    row = RLOO.changed(group_size=2, terms={"distill": distill})
    found = expected_gradient(row, pairs(row))
    exact = gradient_of(objective(row, KL)) - 0.4 * gradient_of(total_divergence(row))
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-4)
