"""The learning rate of every update, by the recipe or by a scheduler of torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR
from transformers import get_linear_schedule_with_warmup

from finite_runs import trainer
from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.learning.rates import LearningRates, UpdateConfig
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from toys import LetterTask, letter_gpt, share_of_a
from training_toys import build

SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "linear with warm-up": partial(get_linear_schedule_with_warmup, num_warmup_steps=2, num_training_steps=8),
    "steps": partial(StepLR, step_size=3, gamma=0.5),
    "cosine": partial(CosineAnnealingLR, T_max=8),
}


def optimizer() -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(3)]
    return torch.optim.SGD(groups, lr=7.0)


def rates(of: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in of.param_groups]


def config(**changes: Any) -> UpdateConfig:
    return UpdateConfig.model_validate(changes)


def test_critics_follow_the_policy_or_a_rate_of_their_own() -> None:
    found = optimizer()
    LearningRates(found, config(learning_rate={"start": 1.0, "end": 0.0})).set(3, 0.25)
    assert rates(found) == [0.75] * 3
    LearningRates(found, config(learning_rate=0.5, critic_learning_rate=2.0)).set(3, 0.25)
    assert rates(found) == [0.5, 2.0, 2.0]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_is_stepped_once_after_each_update(name: str) -> None:
    own, found = optimizer(), optimizer()
    for group, rate in zip(own.param_groups, [0.5, 2.0, 2.0], strict=True):
        group["lr"] = rate
    scheduler = SCHEDULERS[name](own)
    ours = LearningRates(found, config(learning_rate=0.5, critic_learning_rate=2.0), 8, SCHEDULERS[name])
    for update in range(8):
        ours.set(update, update / 8)
        assert rates(found) == pytest.approx(rates(own))
        own.step()
        scheduler.step()


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("update", [0, 1, 2, 5])
def test_a_resumed_run_has_the_rate_of_the_one_that_went_on(name: str, update: int) -> None:
    through, resumed = optimizer(), optimizer()
    ours = LearningRates(through, config(learning_rate=0.5), 8, SCHEDULERS[name])
    for earlier in range(update + 1):
        state = through.state_dict()
        ours.set(earlier, earlier / 8)
    again = LearningRates(resumed, config(learning_rate=0.5), 8, SCHEDULERS[name])
    resumed.load_state_dict(state)
    again.set(update, update / 8)
    assert rates(resumed) == pytest.approx(rates(through))
    ours.set(3, 0.375)
    again.set(3, 0.375)
    assert rates(resumed) == pytest.approx(rates(through))


def test_a_run_with_a_scheduler_given_in_python(tmp_path: Path) -> None:
    recipe = {
        "algorithm": "rloo",
        "output": str(tmp_path / "run"),
        "rollout": {"episodes": 8, "max_prompt_tokens": 4, "max_response_tokens": 6},
        "update": {"minibatch": 4, "learning_rate": 0.01},
        "training": {"updates": 3, "trackers": []},
        "evaluation": {"samples": 8, "test_samples": 8},
    }
    given: dict[str, Any] = {"policy": letter_gpt(), "task": LetterTask(), "reward": share_of_a}
    halving = partial(StepLR, step_size=1, gamma=0.5)
    trainer = Trainer(recipe, display=Display(Console(quiet=True)), scheduler=halving, **given)
    trainer.train()
    assert rates(trainer.parts.updater.optimizer) == [0.0025]
    falling = load_config(
        recipe, "update.learning_rate={start: 1, end: 0}", given=["policy", "task", "reward"]
    )
    with pytest.raises(UserError, match="must be plain numbers beside a 'scheduler'"):
        Trainer(falling, scheduler=halving, **given)


def test_learning_rates_follow_their_schedules() -> None:
    trainer = build(
        update={"learning_rate": {"start": 4e-3, "end": 0.0}, "critic_learning_rate": {"start": 1.0}}
    )
    rates = []
    for _ in range(4):
        trainer.step()
        rates.append([group["lr"] for group in trainer.parts.updater.optimizer.param_groups])
    assert rates == [pytest.approx([4e-3 * left, 1.0]) for left in (1.0, 0.75, 0.5, 0.25)]


def test_a_critic_learns_at_the_rate_of_the_policy_by_default() -> None:
    trainer = build("lols", update={"learning_rate": 2e-3})
    trainer.step()
    assert [group["lr"] for group in trainer.parts.updater.optimizer.param_groups] == [2e-3] * 3


def test_the_first_update_of_a_warm_up_moves_the_policy(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", learning_rate={"start": 1e-2, "warmup": 0.9})
    before = [weight.clone() for weight in run.parts.policy.model.parameters()]
    run.step()
    assert any(
        not torch.equal(*pair) for pair in zip(before, run.parts.policy.model.parameters(), strict=True)
    )


def test_a_rate_that_an_optimizer_was_made_with_holds_where_the_recipe_says_none() -> None:
    def made(**chosen: float) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(2)], **chosen)

    for found, changes, expected in (
        (made(lr=0.5), {}, [0.5, 0.5]),
        (made(lr=0.5), {"learning_rate": 0.5}, [0.5, 0.5]),
        (made(), {}, [1e-4, 1e-4]),
        (made(), {"learning_rate": 0.25, "critic_learning_rate": 2.0}, [0.25, 2.0]),
    ):
        LearningRates(found, config(**changes), own=True).set(0, 0.0)
        assert rates(found) == expected
    for changes, said in (
        ({"learning_rate": {"start": 0.25, "end": 0}}, "'update.learning_rate' is 0.25 at first: leave one"),
        ({"critic_learning_rate": 2.0}, "'update.critic_learning_rate' is 2: leave one of them out"),
    ):
        with pytest.raises(UserError, match="'optimizer' was made with a learning rate of 0.5, and " + said):
            LearningRates(made(lr=0.5), config(**changes), own=True)


def test_the_rate_of_an_optimizer_given_in_python_is_the_runs() -> None:
    run = Trainer(
        {
            "algorithm": "rloo",
            "rollout": {"episodes": 4, "max_prompt_tokens": 4, "max_response_tokens": 2},
            "training": {"updates": 1, "trackers": []},
        },
        display=Display(Console(quiet=True)),
        policy=letter_gpt(),
        task=LetterTask(),
        reward=share_of_a,
        optimizer=partial(torch.optim.SGD, lr=0.5, momentum=0.9),
    )
    run.step()
    assert rates(run.parts.updater.optimizer) == [0.5]
