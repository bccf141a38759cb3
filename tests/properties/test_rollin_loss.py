"""What the policy learns from the roll-in tokens that others wrote."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rlgf.algorithms import Algorithm
from rlgf.algorithms.catalog import GUIDED_GRPO, LUFFY, PPO_PLUS_PLUS
from rlgf.models.forward import Tokens, response_outputs
from rlgf.run.trainer import Trainer
from rlgf.types import Author, Experience
from training_toys import build, experience_of

OPTIONS = {"rollout": {"episodes": 16, "min_response_tokens": 6}}


# The penalty is a term of its own in group-relative losses.
FREE = {"coefficient": 0.0}
FREE_LUFFY = LUFFY.changed(kl=FREE)


def gradient(trainer: Trainer, experience: Experience, row: Algorithm) -> Tensor:
    model = trainer.parts.policy.model
    model.zero_grad()
    trainer.parts.updater.backward(experience, row)
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def expected(trainer: Trainer, experience: Experience, loss: str, *, rollin: float = 1.0) -> Tensor:
    """Automatic differentiation of the loss, written out; the policy's ratio is 1 before its first step.

    The imitation of a guide is a mean of its own. A policy gradient on its tokens is a part of one sum with
    that on the policy's, over the number of both (arXiv 2504.14945, the objective of mixed-policy GRPO).
    """
    model, rollout = trainer.parts.policy.model, experience.rollout
    model.zero_grad()
    tokens = Tokens.of(rollout)
    logits, _ = response_outputs(model, tokens)
    end = trainer.parts.policy.end_id
    # The minimum length binds the policy alone.
    may_end = (torch.arange(logits.shape[1]) >= 6) | (rollout.author != Author.POLICY)
    logits = torch.where((torch.arange(logits.shape[2]) == end) & ~may_end[..., None], -torch.inf, logits)
    logprobs = logits.log_softmax(dim=-1).gather(2, tokens.response_ids[..., None])[..., 0]
    by_guide = rollout.author == Author.GUIDE
    by_policy = rollout.author == Author.POLICY
    ratio = (logprobs[by_policy] - logprobs[by_policy].detach()).exp()
    policy_sum = (ratio * experience.advantages[by_policy]).sum()
    if loss == "shaped_importance":
        probabilities = logprobs[by_guide].exp()
        shaped_sum = (probabilities / (probabilities + 0.1) * experience.advantages[by_guide]).sum()
        total = (policy_sum + rollin * shaped_sum) / (by_policy.sum() + by_guide.sum())
    else:
        total = policy_sum / by_policy.sum() + rollin * logprobs[by_guide].mean()
    (-total).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize(
    ("base", "loss"),
    [
        (PPO_PLUS_PLUS, "nll"),
        (PPO_PLUS_PLUS, "shaped_importance"),
        (GUIDED_GRPO, "nll"),
        (LUFFY, "shaped_importance"),
    ],
)
def test_the_rollin_loss_has_its_part_of_the_gradient(base: Algorithm, loss: str) -> None:
    def weighted(weight: float) -> Algorithm:
        return base.changed(kl=FREE, terms={"rollin": {"loss": loss, "on": "rollin", "weight": weight}})

    trainer = build(base.name, **OPTIONS)
    experience = experience_of(trainer, weighted(1.0))
    assert experience.rollout.written_by(Author.GUIDE).any()
    gradients = {}
    for coefficient in (1.0, 0.5, 0.0):
        gradients[coefficient] = gradient(trainer, experience, weighted(coefficient))
        wanted = expected(trainer, experience, loss, rollin=coefficient)
        torch.testing.assert_close(gradients[coefficient], wanted, atol=1e-5, rtol=1e-4)
    assert (gradients[1.0] - gradients[0.0]).abs().max() > 1e-3


def test_a_guides_token_weighs_as_much_as_a_policys() -> None:
    """With all advantages 1 and f = 1 the gradient of FREE_LUFFY is that of one mean over all tokens."""
    trainer = build("luffy", **OPTIONS)
    experience = experience_of(trainer, FREE_LUFFY)
    experience = replace(experience, advantages=torch.ones_like(experience.advantages))
    metrics = trainer.parts.updater.backward(experience, FREE_LUFFY)
    counts = [int(experience.rollout.written_by(author).sum()) for author in (Author.POLICY, Author.GUIDE)]
    assert metrics["policy_loss"] == pytest.approx(-counts[0] / sum(counts), abs=1e-5)
    # The loss of the guide's tokens is their mean weight f, by their share of all.
    weight = float(metrics["rollin_shaped_weight"])
    assert metrics["rollin_loss"] == pytest.approx(-weight * counts[1] / sum(counts), abs=1e-5)
    assert 0 < weight < 1


def test_the_joint_gradient_does_not_depend_on_micro_batches() -> None:
    whole, cut = (build("luffy", **OPTIONS, update={"max_micro_tokens": tokens}) for tokens in (10_000, 24))
    found = [gradient(trainer, experience_of(trainer, FREE_LUFFY), FREE_LUFFY) for trainer in (whole, cut)]
    assert found[0].abs().max() > 1e-3
    torch.testing.assert_close(found[1], found[0], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["no text by a guide", "no text by the policy"])
def test_a_step_without_one_of_the_authors_is_a_mean_over_the_other(share: float) -> None:
    row = FREE_LUFFY.changed(help={"members": None, "probability": share})
    trainer = build("luffy", **OPTIONS)
    experience = experience_of(trainer, row)
    author = Author.GUIDE if share else Author.POLICY
    assert set(experience.rollout.author.unique().tolist()) <= {Author.NOBODY, author}
    found = gradient(trainer, experience, row)
    torch.testing.assert_close(
        found, expected(trainer, experience, "shaped_importance"), atol=1e-5, rtol=1e-4
    )


def test_members_of_a_group_have_rollins_of_their_own() -> None:
    trainer = build("luffy", **OPTIONS)
    samples = trainer.batch()
    rollout = trainer.collect(samples, FREE_LUFFY)
    guided = rollout.written_by(Author.GUIDE).sum(dim=1)
    assert (guided > 0).view(-1, 4).sum(dim=1).tolist() == [1] * 4
    assert all(count in (0, length) for count, length in zip(guided, rollout.lengths, strict=True))
    assert rollout.group.tolist() == [i // 4 for i in range(16)]
