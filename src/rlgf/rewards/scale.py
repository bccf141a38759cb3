"""From a reward's numbers to the pay: normalized, then clipped."""

from __future__ import annotations

import math
from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

_EPSILON = 1e-8
"""Keeps rewards that are all the same, whose deviation is 0, at 0."""


class Scale:
    """``paid = clip((R - mean) / (std + 1e-8), low, high)``, mean and std over all rewards of the run so far.

    The running moments are those of Welford's algorithm, a batch at a time (Chan, Golub and LeVeque,
    1979): with a batch of n rewards, mean m and sum of squared deviations s, and d = m - mean,
    ``mean += d n / (count + n)`` and ``M2 += s + d^2 count n / (count + n)``; ``std^2 = M2 / count``.
    """

    def __init__(self, *, normalize: bool = False, clip: tuple[float, float] | None = None) -> None:
        self.normalize = normalize
        self.clip = clip
        self.count = 0
        self.mean = 0.0
        self._squares = 0.0

    @property
    def std(self) -> float:
        return math.sqrt(self._squares / self.count) if self.count else 0.0

    def pay(self, rewards: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        """The pay for an update's rewards, which are counted in first."""
        if self.normalize:
            self._observe(rewards)
        return self.scaled(rewards)

    def scaled(self, rewards: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The pay for further rewards, which are not counted in."""
        if self.normalize:
            rewards = (rewards - self.mean) / (self.std + _EPSILON)
        return rewards if self.clip is None else rewards.clamp(*self.clip)

    def _observe(self, rewards: Float[Tensor, "B"]) -> None:
        # In double precision: late batches change the moments of a long run by little.
        batch = rewards.double()
        mean, size = float(batch.mean()), len(batch)
        total, delta = self.count + size, mean - self.mean
        squares = float((batch - mean).square().sum())
        self._squares += squares + delta**2 * self.count * size / total
        self.mean += delta * size / total
        self.count = total

    def metrics(self) -> dict[str, float]:
        """The running moments, where rewards are normalized."""
        if not self.normalize:
            return {}
        return {"running_reward_mean": self.mean, "running_reward_std": self.std}

    def state_dict(self) -> dict[str, int | float]:
        """The running moments, for a checkpoint."""
        return {"count": self.count, "mean": self.mean, "squares": self._squares}

    def load_state_dict(self, state: Mapping[str, int | float]) -> None:
        self.count, self.mean, self._squares = int(state["count"]), state["mean"], state["squares"]
