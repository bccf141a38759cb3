"""What the policy learns from the roll-in tokens that others wrote."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from rlgf.algorithms import GUIDED_GRPO, LUFFY, PPO_PLUS_PLUS, Algorithm, algorithm_from
from rlgf.models.scoring import Tokens, response_outputs
from rlgf.training.trainer import Trainer
from rlgf.types import Author, Experience
from test_training import build, experience_of

OPTIONS = {"rollout": {"episodes": 16, "group_size": 4, "min_response_tokens": 6}}


def gradient(trainer: Trainer, experience: Experience, row: Algorithm) -> Tensor:
    model = trainer.parts.policy.model
    model.zero_grad()
    trainer.parts.updater.backward(experience, row)
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def expected(trainer: Trainer, experience: Experience, loss: str) -> Tensor:
    """Automatic differentiation of the loss, written out."""
    model, rollout = trainer.parts.policy.model, experience.rollout
    model.zero_grad()
    tokens = Tokens.of(rollout)
    logits, _ = response_outputs(model, tokens)
    end = trainer.parts.policy.end_id
    may_end = torch.arange(logits.shape[1]) >= 6
    logits = torch.where((torch.arange(logits.shape[2]) == end) & ~may_end[:, None], -torch.inf, logits)
    logprobs = logits.log_softmax(dim=-1).gather(2, tokens.response_ids[..., None])[..., 0]
    by_guide = rollout.author == Author.GUIDE
    per_token = logprobs
    if loss == "shaped_importance":
        per_token = logprobs.exp() / (logprobs.exp() + 0.1) * experience.advantages
    (-per_token[by_guide].mean()).backward()
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
def test_the_rollin_loss_adds_its_gradient_and_nothing_else(base: Algorithm, changes: dict[str, Any]) -> None:
    row = base.model_copy(update=changes)
    without = row.model_copy(update={"rollin_loss": None})
    trainer = build(base.name, **OPTIONS)
    experience = experience_of(trainer, row)
    assert experience.rollout.written_by(Author.GUIDE).any()
    added = gradient(trainer, experience, row) - gradient(trainer, experience, without)
    assert row.rollin_loss is not None
    wanted = expected(trainer, experience, row.rollin_loss)
    assert wanted.abs().max() > 1e-3
    torch.testing.assert_close(added, wanted, atol=1e-5, rtol=1e-4)
    half = row.model_copy(update={"rollin_coef": algorithm_from({"rollin_coef": 0.5}).rollin_coef})
    halved = gradient(trainer, experience, half) - gradient(trainer, experience, without)
    torch.testing.assert_close(halved, wanted / 2, atol=1e-5, rtol=1e-4)


def test_members_of_a_group_have_rollins_of_their_own() -> None:
    trainer = build("luffy", **OPTIONS)
    samples = trainer.batch()
    rollout = trainer.collect(samples, LUFFY)
    guided = rollout.written_by(Author.GUIDE).sum(dim=1)
    assert {0, 5} <= set(guided.tolist()), "nothing, or all of a text but its last token"
    by_group = (guided > 0).view(-1, 4).sum(dim=1).tolist()
    assert any(0 < count < 4 for count in by_group)
    assert rollout.group.tolist() == [i // 4 for i in range(16)]
    shared = trainer.collect(samples, LUFFY.model_copy(update={"rollin_shared": True}))
    counts = (shared.written_by(Author.GUIDE).sum(dim=1) > 0).view(-1, 4).sum(dim=1).tolist()
    assert set(counts) <= {0, 4}


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
