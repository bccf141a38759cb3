"""What the policy learns from the roll-in tokens that others wrote."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from rlgf.algorithms import GUIDED_GRPO, LUFFY, PPO_PLUS_PLUS, Algorithm, algorithm_from
from rlgf.models.scoring import Tokens, response_outputs
from rlgf.schedules import constant
from rlgf.training.trainer import Trainer
from rlgf.types import Author, Experience
from test_training import build, experience_of

OPTIONS = {
    "rollout": {"episodes": 16, "group_size": 4, "min_response_tokens": 6},
    "training": {"kl": {"coefficient": 0.0}},  # a term of its own in group-relative losses
}


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
    ("base", "changes"),
    [
        (PPO_PLUS_PLUS, {"rollin_loss": "nll"}),
        (PPO_PLUS_PLUS, {"rollin_loss": "shaped_importance"}),
        (GUIDED_GRPO, {"rollin_loss": "nll"}),
        (LUFFY, {}),
    ],
)
def test_the_rollin_loss_has_its_part_of_the_gradient(base: Algorithm, changes: dict[str, Any]) -> None:
    row = base.model_copy(update=changes)
    assert row.rollin_loss is not None
    trainer = build(base.name, **OPTIONS)
    experience = experience_of(trainer, row)
    assert experience.rollout.written_by(Author.GUIDE).any()
    gradients = {}
    for coefficient in (1.0, 0.5, 0.0):
        row = row.model_copy(update={"rollin_coef": constant(coefficient)})
        gradients[coefficient] = gradient(trainer, experience, row)
        wanted = expected(trainer, experience, row.rollin_loss, rollin=coefficient)
        torch.testing.assert_close(gradients[coefficient], wanted, atol=1e-5, rtol=1e-4)
    assert (gradients[1.0] - gradients[0.0]).abs().max() > 1e-3


def test_a_guides_token_weighs_as_much_as_a_policys() -> None:
    """With all advantages 1 and f = 1 the gradient of LUFFY is that of one mean over all tokens."""
    trainer = build("luffy", **OPTIONS)
    experience = experience_of(trainer, LUFFY)
    experience = replace(experience, advantages=torch.ones_like(experience.advantages))
    # The two losses report their own means, whose weights are the shares of the tokens.
    metrics = trainer.parts.updater.backward(experience, LUFFY)
    counts = [int(experience.rollout.written_by(author).sum()) for author in (Author.POLICY, Author.GUIDE)]
    assert metrics["policy_loss"] == pytest.approx(-1.0, abs=1e-5)
    mean = (counts[0] * metrics["policy_loss"] + counts[1] * metrics["rollin_loss"]) / sum(counts)
    shaped = metrics["rollin_shaped_weight"]
    assert mean == pytest.approx(-(counts[0] + counts[1] * float(shaped)) / sum(counts), abs=1e-5)


def test_the_joint_gradient_does_not_depend_on_micro_batches() -> None:
    whole, cut = (build("luffy", **OPTIONS, update={"max_micro_tokens": tokens}) for tokens in (10_000, 24))
    found = [gradient(trainer, experience_of(trainer, LUFFY), LUFFY) for trainer in (whole, cut)]
    assert found[0].abs().max() > 1e-3
    torch.testing.assert_close(found[1], found[0], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["no text by a guide", "no text by the policy"])
def test_a_step_without_one_of_the_authors_is_a_mean_over_the_other(share: float) -> None:
    row = LUFFY.model_copy(update={"rollin_members": None, "rollin_prob": constant(share)})
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
    rollout = trainer.collect(samples, LUFFY)
    guided = rollout.written_by(Author.GUIDE).sum(dim=1)
    assert (guided > 0).view(-1, 4).sum(dim=1).tolist() == [1] * 4
    assert all(count in (0, length) for count, length in zip(guided, rollout.lengths, strict=True))
    assert rollout.group.tolist() == [i // 4 for i in range(16)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "ppo", "rollin_loss": "nll"}, "set 'rollin' to guide or reference"),
        ({"base": "aggrevated", "rollin_loss": "nll"}, "set 'rollin' to guide or reference"),
        ({"base": "ppo++", "rollin_loss": "clipped_surrogate"}, "needs the writer's probabilities"),
        ({"base": "guided-grpo", "rollin_loss": "shaped_importance"}, "cancel over a roll-in"),
    ],
)
def test_a_rollin_loss_that_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        algorithm_from(changes)
