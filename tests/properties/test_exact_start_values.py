"""`a-star-po` regresses the exact advantage, has the best policy as its fixed point, and estimates the exact value.

As in test_exact_gradients.py a batch is the distribution itself.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from enumerated import (
    POLICY,
    REFERENCE,
    RESPONSES,
    gradient_of,
    likelihood,
    reward,
    rollout_of,
    score,
    whole_distribution,
)
from torch import Tensor

from rlgf.algorithms.catalog import A_STAR_PO
from rlgf.learning.assessor import Assessor
from rlgf.learning.rates import UpdateConfig
from rlgf.learning.updater import Updater
from rlgf.models.sampling import Sampling
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.writers import Draft
from rlgf.types import Author, Rollout, Sample
from toys import LENGTH, STATES, TableModel, state_index, table_language_model

BETA = 0.5
ROW = A_STAR_PO.changed(terms={"policy": {"options": {"beta": BETA}}}, start_value={"beta": BETA})
MOVED = (POLICY.log() + torch.linspace(-0.4, 0.5, POLICY.numel()).view_as(POLICY)).softmax(dim=-1)


def tilted(prefix: tuple[int, ...]) -> Tensor:
    """The sum over texts that go on from a prefix of ref(y | prefix) exp(R(y) / beta)."""
    ways = [response for response in RESPONSES if response[: len(prefix)] == prefix]
    factors = [torch.tensor(score(way) / BETA).exp() for way in ways]
    chances = [likelihood(REFERENCE, way, len(prefix), LENGTH) for way in ways]
    return torch.stack([f * c for f, c in zip(factors, chances, strict=True)]).sum()


VALUE = float(BETA * tilted(()).log())
BEST = torch.stack(
    [
        torch.stack([REFERENCE[state_index(state), token] * tilted((*state, token)) for token in range(3)])
        / tilted(state)
        for state in STATES
    ]
)
"""pi* = ref exp(R / beta) / exp(V / beta), token by token."""


def library(rollout: Rollout, at: Tensor, micro_tokens: int = 10**6) -> tuple[Tensor, float]:
    """The gradient at a policy, and the loss, both of a mean over texts."""
    start = table_language_model(REFERENCE)
    rollout = replace(rollout, start_values=torch.full((len(rollout),), VALUE, dtype=torch.float64))
    assessor = Assessor(table_language_model(POLICY), start, {}, reward, Sampling(), 10**6)
    experience = assessor.assess(rollout, ROW, 0.3)
    policy = table_language_model(at)
    updater = Updater(policy, {}, Sampling(), UpdateConfig(max_micro_tokens=micro_tokens), seed=0)
    metrics = updater.backward(experience, ROW)
    assert isinstance(policy.model, TableModel)
    assert policy.model.table.grad is not None
    return policy.model.table.grad[:, :3], float(metrics["policy_loss"])


def objective(probabilities: Tensor) -> Tensor:
    """The mean over texts of the old policy of (beta log pi / ref - (R - V))^2."""
    total = torch.tensor(0.0)
    for response in RESPONSES:
        ratio = likelihood(probabilities, response, 0, LENGTH) / likelihood(REFERENCE, response, 0, LENGTH)
        error = BETA * ratio.log() - (score(response) - VALUE)
        total = total + likelihood(POLICY, response, 0, LENGTH) * error**2
    return total


def test_the_gradient_is_that_of_the_regression() -> None:
    rollout = whole_distribution(ROW)
    for micro_tokens in (10**6, 20):
        gradient, loss = library(rollout, MOVED, micro_tokens)
        torch.testing.assert_close(gradient, gradient_of(objective, MOVED), atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(loss, float(objective(MOVED)), atol=1e-6, rtol=1e-5)
        assert gradient.abs().max() > 1e-2


def test_the_best_policy_is_where_it_ends() -> None:
    """At pi* the ratio to the start is the advantage, whoever wrote the texts."""
    gradient, loss = library(whole_distribution(ROW), BEST)
    assert loss < 1e-9
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-5, rtol=0)


def test_where_all_texts_earn_what_the_start_does_nothing_is_learned() -> None:
    rollout = whole_distribution(ROW)
    gradient, _ = library(rollout, REFERENCE)
    assert gradient.any()
    alike = replace(
        rollout, texts=("aaa",) * len(rollout), start_values=torch.full((len(rollout),), score((0, 0, 0)))
    )
    start = table_language_model(REFERENCE)
    experience = Assessor(table_language_model(POLICY), start, {}, reward, Sampling(), 10**6).assess(
        alike, ROW, 0.3
    )
    policy = table_language_model(REFERENCE)
    Updater(policy, {}, Sampling(), UpdateConfig(), seed=0).backward(experience, ROW)
    assert not policy.model.table.grad.any()


@pytest.mark.long
def test_the_estimate_tends_to_the_exact_value() -> None:
    """Of the start, however the policy writes; and the policy's own texts are as they would be without."""
    row = ROW.changed(start_value={"texts": 20_000})
    start, policy = table_language_model(REFERENCE), table_language_model(POLICY)
    config = RolloutConfig(max_prompt_tokens=4, min_response_tokens=LENGTH, max_response_tokens=LENGTH)
    collector = Collector(policy, None, config, seed=0, start=start)

    def rewards(rollout: Rollout) -> Tensor:
        return torch.tensor(reward(rollout.prompts, list(rollout.texts)))

    rollout = collector.collect([Sample("")], row, rewards=rewards)
    assert rollout.start_values is not None
    assert abs(float(rollout.start_values[0]) - VALUE) < 0.01
    assert collector.sampled[Author.POLICY] == 20_001 * LENGTH
    plain = Collector(policy, None, config, seed=0).collect(
        [Sample("")], row.model_copy(update={"start_value": None})
    )
    assert plain.texts == rollout.texts
    assert (
        rollout_of(
            [Draft(Sample("a"), [3], seed=0, ids=[0], authors=[Author.POLICY], logprobs=[0.0])]
        ).start_values
        is None
    )
