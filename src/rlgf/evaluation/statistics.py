"""Means with intervals over seeds. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and half the width of its 95% confidence interval (NaN for a single seed)."""

    mean: float
    half_width: float
    count: int


def interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean: ``mean +- t(0.975, n - 1) * s / sqrt(n)``.

    Raises:
        ValueError: there are no values.
    """
    count = len(values)
    if count == 0:
        raise ValueError("an interval needs at least one value")
    mean = sum(values) / count
    if count == 1:
        return Interval(mean, math.nan, 1)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    return Interval(mean, float(stats.t.ppf(0.975, count - 1)) * deviation / math.sqrt(count), count)


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Interval | None:
    """The interval of the differences at equal seeds; None where no seed has both."""
    shared = sorted(values.keys() & baseline.keys())
    return interval([values[seed] - baseline[seed] for seed in shared]) if shared else None


def first_at(curve: Sequence[tuple[float, float]], level: float) -> float | None:
    """Where a curve of (x, y) points first reaches a level, on straight lines between its points."""
    for i, (x, y) in enumerate(curve):
        if y >= level:
            if i == 0:
                return x
            x0, y0 = curve[i - 1]
            return x0 + (x - x0) * (level - y0) / (y - y0)
    return None
