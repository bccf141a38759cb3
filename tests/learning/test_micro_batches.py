"""How an update is cut into micro-batches changes nothing."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from rlgf.algorithms import Algorithm
from rlgf.errors import UserError
from rlgf.learning.micro_batches import check_result
from rlgf.models.critic import build_critic
from rlgf.models.response_scores import score_logprobs, score_values
from rlgf.models.sampling import Sampling
from rlgf.run.trainer import Trainer
from rlgf.types import Experience
from toys import letter_gpt, written
from training_toys import ROWS, build, experience_of


def learned_span(name: str) -> str:
    return next(str(term.on) for term in ROWS[name].terms.values() if not term.of_critic)


def gradients(trainer: Trainer, experience: Experience, row: Algorithm, rows: Sequence[int]) -> list[Tensor]:
    updater = trainer.parts.updater
    order = torch.tensor(rows)
    references = trainer.parts.collector.collect(experience.rollout.samples, ROWS["bc"])
    updater.optimizer.zero_grad()
    updater.backward(experience.take_units(order), row, references=references[order])
    return [p.grad.clone() for ps in updater.parameters.values() for p in ps if p.grad is not None]


MORE = {
    "references": {"loss": "nll", "on": "references", "weight": 0.2},
    "entropy": {"weight": 0.1},
}


@pytest.mark.parametrize(
    ("name", "critic"),
    [
        ("bc", "separate"),
        ("ppo++", "separate"),
        ("ppo++", "head"),
        ("aggrevated", "separate"),
        ("aggrevated", "head"),
        ("guided-grpo", "separate"),
        ("luffy", "separate"),
    ],
)
def test_gradients_depend_neither_on_micro_batches_nor_on_order(name: str, critic: str) -> None:
    found = []
    for budget, rows in ((10_000, range(16)), (30, range(16)), (1, range(16)), (30, range(15, -1, -1))):
        trainer = build(name, critic=critic, update={"max_micro_tokens": budget})
        row = ROWS[name].changed(terms={**MORE, "entropy": {"weight": 0.1, "on": learned_span(name)}})
        found.append(gradients(trainer, experience_of(trainer, row), row, rows))
    whole, *others = found
    assert max(float(gradient.abs().max()) for gradient in whole) > 1e-3
    for other in others:
        torch.testing.assert_close(other, whole, atol=1e-5, rtol=1e-4)


def test_an_update_ends_in_the_same_policy_whatever_the_micro_batches() -> None:
    """What the models say is compared: the bias of attention keys changes nothing, and its gradient is
    rounding noise that Adam scales up.
    """
    row = ROWS["ppo++"].changed(terms=MORE)
    ends = []
    for budget in (10_000, 30):
        trainer = build("ppo++", update={"max_micro_tokens": budget})
        parts = trainer.parts
        experience = experience_of(trainer, row)
        trainer.learn(experience, row)
        episodes = experience.rollout
        ends.append(
            (
                score_logprobs(parts.policy.model, episodes, Sampling(), parts.policy.end_ids, 10_000),
                score_values(parts.updater.critics["policy"], parts.policy.model, episodes, 10_000),
            )
        )
    assert (ends[0][1] - experience.scored.values).abs().max() > 0.01
    torch.testing.assert_close(ends[0], ends[1], atol=1e-4, rtol=1e-4)


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
