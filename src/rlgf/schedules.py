"""Numbers that change over a run: coefficients, learning rates, roll-in probabilities."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from rlgf.strict import Strict


class Schedule(Strict):
    """A number as a function of the share of the run that is over.

    In a recipe a plain number is a constant; ``{start: 0.6, end: 0, shape: linear}`` falls from
    0.6 to 0 over the run, and ``over: 0.5`` makes it arrive at half of it.
    """

    start: float = Field(ge=0, allow_inf_nan=False)
    end: float = Field(ge=0, allow_inf_nan=False)
    shape: Literal["linear", "cosine", "step"] = "linear"
    """``step`` stays at ``start`` and jumps to ``end`` when ``over`` is reached."""
    over: float = Field(default=1.0, gt=0, le=1)
    """The share of the run after which ``end`` is reached."""
    warmup: float = Field(default=0.0, ge=0, lt=1)
    """The share of the run during which the number is multiplied by a factor that rises from 0 to 1, so that a fall from
    ``start`` begins beneath it; a learning rate reaches its first step of the rise in the first update."""

    @model_validator(mode="before")
    @classmethod
    def _constant(cls, data: Any) -> Any:
        if isinstance(data, int | float) and not isinstance(data, bool):
            return {"start": data, "end": data}
        if isinstance(data, dict) and "start" in data and "end" not in data:
            return {**data, "end": data["start"]}
        return data

    @property
    def changes(self) -> bool:
        """Whether it is more than one number."""
        return self.start != self.end or self.warmup > 0

    def at(self, progress: float, step: float = 0.0) -> float:
        """The number at ``progress``, the share of the run that is over, from 0 to 1.

        Args:
            step: the share of the run that the update under way is, where a warm-up is to count it: a learning
                rate of 0 would waste all that the first update collects.
        """
        done = min(progress / self.over, 1.0)
        weight = {
            "linear": done,
            "cosine": (1 - math.cos(math.pi * done)) / 2,
            "step": float(done >= 1),
        }[self.shape]
        value = self.start + (self.end - self.start) * weight
        return value * min((progress + step) / self.warmup, 1.0) if self.warmup else value


def _at_most_one(schedule: Schedule) -> Schedule:
    if max(schedule.start, schedule.end) > 1:
        raise ValueError("a probability or share must lie between 0 and 1")
    return schedule


Share = Annotated[Schedule, AfterValidator(_at_most_one)]
"""A schedule of a probability or a share."""


def constant(value: float) -> Schedule:
    return Schedule(start=value, end=value)
