"""Losses over pairs follow the exact gradient of their objectives; see `enumerated`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from enumerated import (
    POLICY,
    REFERENCE,
    RESPONSES,
    draft,
    gradient_of,
    likelihood,
    penalized,
    reward,
    rollout_of,
    score,
)
from pairs_of_episodes import KL, assessed, episodes, picked, row
from torch import Tensor

from rlgf.algorithms import Algorithm
from rlgf.learning.assessor import Assessor
from rlgf.learning.rates import UpdateConfig
from rlgf.learning.updater import Updater
from rlgf.models.sampling import Sampling
from rlgf.types import Experience
from toys import LENGTH, TableModel, table_language_model

ONLINE = ("dpo", "guided-dpo", "rebel", "guided-rebel")


def library_gradient(
    found: Algorithm, experience: Experience, micro_tokens: int = 10**6
) -> tuple[Tensor, dict[str, float]]:
    """Of the loss over all pairs, at a policy that has moved from where the update began."""
    policy = table_language_model(MOVED)
    config = UpdateConfig(max_micro_tokens=micro_tokens)
    updater = Updater(policy, {}, Sampling(), config, seed=0)
    metrics = updater.backward(picked(experience), found)
    assert isinstance(policy.model, TableModel)
    assert policy.model.table.grad is not None
    return policy.model.table.grad[:, :3], {name: float(value) for name, value in metrics.items()}


def beta_of(found: Algorithm) -> float:
    return 0.1 if found.terms["policy"].loss == "dpo" else 1.0


MOVED = (POLICY.log() + torch.linspace(-0.4, 0.5, POLICY.numel()).view_as(POLICY)).softmax(dim=-1)


def exact_loss(found: Algorithm, texts: list[tuple[tuple[int, ...], int]]) -> Callable[[Tensor], Tensor]:
    def ratio(probabilities: Tensor, base: Tensor, response: tuple[int, ...]) -> Tensor:
        return (likelihood(probabilities, response, 0, LENGTH) / likelihood(base, response, 0, LENGTH)).log()

    def value(probabilities: Tensor) -> Tensor:
        terms = []
        for (one, first), (other, second) in zip(texts[::2], texts[1::2], strict=True):
            if found.terms["policy"].loss == "dpo":
                gap = score(one) - score(other)
                better, worse = (one, other) if gap > 0 else (other, one)
                change = ratio(probabilities, REFERENCE, better) - ratio(probabilities, REFERENCE, worse)
                loss = (1 + (-beta_of(found) * change).exp()).log()
            else:
                gap = float(penalized(POLICY, one, first, KL) - penalized(POLICY, other, second, KL))
                change = ratio(probabilities, POLICY, one) - ratio(probabilities, POLICY, other)
                loss = (beta_of(found) * change - gap) ** 2
            if abs(gap) > 1e-6:
                terms.append(loss)
        return torch.stack(terms).mean()

    return value


def moved_gradient(objective: Callable[[Tensor], Tensor]) -> Tensor:
    logits = MOVED.log().clone().requires_grad_()
    objective(logits.softmax(dim=-1)).backward()
    assert logits.grad is not None
    return logits.grad


@pytest.mark.parametrize("name", ONLINE)
def test_a_pair_loss_follows_the_gradient_of_its_objective(name: str) -> None:
    found = row(name)
    texts = episodes(guided=found.script.rollin is not None)
    experience = assessed(found, [draft(found, response, switch) for response, switch in texts])
    gradient, metrics = library_gradient(found, experience)
    objective = exact_loss(found, texts)
    torch.testing.assert_close(gradient, moved_gradient(objective), atol=1e-6, rtol=1e-4)
    assert metrics["policy_loss"] == pytest.approx(float(objective(MOVED)), rel=1e-5)
    assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize("name", ONLINE)
def test_micro_batches_change_nothing_and_part_no_pair(name: str) -> None:
    found = row(name)
    texts = episodes(guided=found.script.rollin is not None)
    experience = assessed(found, [draft(found, response, switch) for response, switch in texts])
    whole, metrics = library_gradient(found, experience)
    for micro_tokens in (1, 8, 20):
        cut, again = library_gradient(found, experience, micro_tokens)
        torch.testing.assert_close(cut, whole, atol=1e-7, rtol=1e-5)
        assert again == pytest.approx(metrics, rel=1e-5, abs=1e-6)


def test_offline_dpo_follows_the_gradient_of_its_objective() -> None:
    """The data's order, not the reward, says which text is the better one; nobody asks for a reward."""
    found = row("offline-dpo")
    texts = [(response, 0) for response in RESPONSES[:26]]
    drafts = [draft(found, response, 0) for response, _ in texts]
    groups = [i // 2 for i in range(len(drafts))]
    reference = table_language_model(REFERENCE)
    assessor = Assessor(table_language_model(POLICY), reference, {}, None, Sampling(), 10**6)
    experience = assessor.assess(rollout_of(drafts, groups), found, KL)

    def objective(probabilities: Tensor) -> Tensor:
        terms = []
        for (one, _), (other, _) in zip(texts[::2], texts[1::2], strict=True):
            ratios = [
                (likelihood(probabilities, text, 0, LENGTH) / likelihood(REFERENCE, text, 0, LENGTH)).log()
                for text in (one, other)
            ]
            terms.append((1 + (-beta_of(found) * (ratios[0] - ratios[1])).exp()).log())
        return torch.stack(terms).mean()

    gradient, _ = library_gradient(found, experience)
    torch.testing.assert_close(gradient, moved_gradient(objective), atol=1e-6, rtol=1e-4)
    assert experience.scored.rewards is None


def test_the_first_step_of_rebel_is_a_policy_gradient() -> None:
    """At pi = old the gradient is -2 beta (R - R') (grad log pi(y) - grad log pi(y'))."""
    found = row("rebel")
    texts = episodes(guided=False)
    experience = assessed(found, [draft(found, response, 0) for response, _ in texts], kl=0.0)
    policy = table_language_model(POLICY)
    updater = Updater(policy, {}, Sampling(), UpdateConfig(), seed=0)
    updater.backward(picked(experience), found)

    def surrogate(probabilities: Tensor) -> Tensor:
        terms = []
        for (one, _), (other, _) in zip(texts[::2], texts[1::2], strict=True):
            logs = [likelihood(probabilities, text, 0, LENGTH).log() for text in (one, other)]
            if score(one) != score(other):
                terms.append(-2 * (score(one) - score(other)) * (logs[0] - logs[1]))
        return torch.stack(terms).mean()

    assert isinstance(policy.model, TableModel)
    assert policy.model.table.grad is not None
    torch.testing.assert_close(policy.model.table.grad[:, :3], gradient_of(surrogate), atol=1e-6, rtol=1e-4)


def test_only_the_best_and_the_worst_of_a_group_are_learned_from() -> None:
    found = row("dpo")
    drafts = [draft(found, RESPONSES[i], 0) for i in (0, 5, 9, 14, 3, 3)]
    rollout = rollout_of(drafts, [0, 0, 0, 0, 1, 1])
    policy, reference = table_language_model(POLICY), table_language_model(REFERENCE)
    experience = Assessor(policy, reference, {}, reward, Sampling(), 10**6).assess(rollout, found, KL)
    scores = [score(RESPONSES[i]) for i in (0, 5, 9, 14)]
    best, worst = scores.index(max(scores)), scores.index(min(scores))
    assert experience.pairs is not None
    assert experience.pairs.tolist() == [[best, worst]]
    assert picked(experience).rollout.texts == (rollout.texts[best], rollout.texts[worst])
