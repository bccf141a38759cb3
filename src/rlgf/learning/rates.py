"""The settings of an update, and its learning rates: by schedules, or by a scheduler of torch."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rlgf.errors import UserError
from rlgf.identity import FREE
from rlgf.schedules import Schedule, constant
from rlgf.strict import Strict


class UpdateConfig(Strict):
    """How an update turns experience into weights."""

    epochs: int = Field(default=2, ge=1)
    minibatch: int = Field(default=28, ge=1)
    """Episodes per optimizer step."""
    max_micro_tokens: Annotated[int, FREE] = Field(default=16_384, ge=1)
    """Tokens, padding included, of one forward and backward pass; bounds memory, changes no result."""
    gradient_checkpointing: Annotated[bool, FREE] = False
    """Keep the inputs of the layers alone and compute the rest a second time in the backward pass, of the policy and of
    critics: less memory for about a third more time, and no other result."""
    learning_rate: Schedule = constant(1e-4)
    critic_learning_rate: Schedule | None = None
    """Default: the policy's."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_gradient_norm: float = Field(default=1.0, gt=0)
    """The limit for the policy, and for each critic by itself."""
    max_update_kl: float | None = Field(default=None, gt=0)
    """End an update early once a minibatch is this far from where the update began, in nats per token."""


SchedulerFactory = Callable[[Optimizer], LRScheduler]
"""Makes a scheduler of an optimizer's learning rates, which is stepped once after each update."""


class LearningRates:
    """Sets the learning rates of an optimizer, from the number of the update alone: there is no state to save."""

    def __init__(
        self,
        optimizer: Optimizer,
        config: UpdateConfig,
        updates: int | None = None,
        make_scheduler: SchedulerFactory | None = None,
        *,
        own: bool = False,
    ) -> None:
        """
        Args:
            optimizer: its first group of parameters is the policy's, the others are critics'.
            updates: how many updates the run has, so that a warm-up counts the first one.
            make_scheduler: takes the place of the configuration's schedules, and goes on from where they start.
            own: the optimizer was given in Python: a rate that it was made with counts where the recipe says none.

        Raises:
            UserError: both say one, and not the same.
        """
        critics = config.critic_learning_rate or config.learning_rate
        self.optimizer, self.make_scheduler = optimizer, make_scheduler
        self.schedules = [config.learning_rate, *[critics] * (len(optimizer.param_groups) - 1)]
        if own:
            of_critics = "learning_rate" if config.critic_learning_rate is None else "critic_learning_rate"
            named = ["learning_rate", *[of_critics] * (len(optimizer.param_groups) - 1)]
            self.schedules = [
                _agreed(_chosen(optimizer, group), schedule, name)
                for group, schedule, name in zip(optimizer.param_groups, self.schedules, named, strict=True)
            ]
        self.share = 1 / updates if updates else 0.0
        if make_scheduler is not None:
            self._restart()

    def set(self, update: int, progress: float) -> None:
        """Give the optimizer the rates of an update.

        Args:
            progress: the share of the run that is over.
        """
        if self.make_scheduler is not None:
            self._follow(update)
            return
        for group, schedule in zip(self.optimizer.param_groups, self.schedules, strict=True):
            group["lr"] = schedule.at(progress, self.share)

    def _restart(self) -> None:
        for group, schedule in zip(self.optimizer.param_groups, self.schedules, strict=True):
            group["lr"] = group["initial_lr"] = schedule.start
        assert self.make_scheduler is not None, "asked for with a scheduler alone"
        self.scheduler, self.reached = self.make_scheduler(self.optimizer), 0
        if not callable(getattr(self.scheduler, "step", None)):
            raise UserError(
                f"'scheduler' returned {self.scheduler!r:.60}: it must return a scheduler of torch, which has 'step'."
            )

    def _follow(self, update: int) -> None:
        # Some schedulers reckon from the rate before, so a resumed run goes through all of them.
        if update not in (self.reached, self.reached + 1):
            self._restart()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            while self.reached < update:
                self.scheduler.step()
                self.reached += 1


def _chosen(optimizer: Optimizer, group: Mapping[str, Any]) -> float | None:
    """The rate that a group of an optimizer was made with; None where it is the usual one of its class."""
    usual = inspect.signature(type(optimizer)).parameters.get("lr")
    rate = float(group["lr"])
    return None if usual is not None and rate == usual.default else rate


def _agreed(chosen: float | None, schedule: Schedule, name: str) -> Schedule:
    """The recipe's rate, or the optimizer's own where the recipe leaves its rate at the default."""
    if chosen is None or schedule == constant(chosen):
        return schedule
    if schedule == UpdateConfig().learning_rate:
        return constant(chosen)
    raise UserError(
        f"'optimizer' was made with a learning rate of {chosen:g}, and 'update.{name}' is "
        f"{schedule.start:g}{' at first' if schedule.changes else ''}: leave one of them out."
    )
