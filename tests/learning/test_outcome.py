"""What an update ends in is looked at before anybody builds on it."""

from __future__ import annotations

import copy

import pytest
import torch

from rlgf.errors import UserError
from rlgf.learning.outcome import check_result
from rlgf.models.critic import build_critic
from toys import letter_gpt, written

ROLLOUT = written("cd", "a")


def test_finite_weights_and_outputs_pass() -> None:
    policy = letter_gpt()
    critic = build_critic("separate", policy.model)
    check_result(policy, {"policy": critic}, {"policy": list(policy.model.parameters())}, ROLLOUT)


def test_the_number_that_is_not_finite_is_named() -> None:
    policy = letter_gpt()
    weight = next(policy.model.parameters())
    with torch.no_grad():
        weight[0] = torch.nan
    with pytest.raises(UserError, match="the weights of the policy"):
        check_result(policy, {}, {"policy": [weight]}, ROLLOUT)
    with pytest.raises(UserError, match="gives numbers that are not finite"):
        check_result(policy, {}, {}, ROLLOUT)


def test_a_critic_whose_values_are_not_finite_is_named() -> None:
    policy = letter_gpt()
    critic = copy.deepcopy(build_critic("separate", policy.model))
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.fill_(torch.inf)
    with pytest.raises(UserError, match="the values of the critic guide"):
        check_result(policy, {"guide": critic}, {}, ROLLOUT)
