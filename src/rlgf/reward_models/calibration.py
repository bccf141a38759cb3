"""Whether a model is right as often as it says: bins, expected calibration error, reliability plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from torch import Tensor

mpl.use("Agg")

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Predictions of like confidence."""

    count: int
    confidence: float
    """Their mean probability of what they say, from 0.5 to 1."""
    accuracy: float
    """How many of them are right."""


def reliability(probabilities: Float[Tensor, "N"], labels: Bool[Tensor, "N"]) -> list[Bin]:
    """Predictions in ten bins of equal width by their confidence ``max(p, 1 - p)``; empty bins are left out."""
    confidence = probabilities.maximum(1 - probabilities)
    right = (probabilities > 0.5) == labels
    place = ((confidence - 0.5) * 2 * BINS).long().clamp(max=BINS - 1)
    bins = []
    for number in range(BINS):
        inside = place == number
        if inside.any():
            mean = float(confidence[inside].mean())
            bins.append(Bin(int(inside.sum()), mean, float(right[inside].float().mean())))
    return bins


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """``ECE = sum_b n_b / N |accuracy_b - confidence_b|`` (Guo et al., arXiv 1706.04599, equation 3)."""
    count = sum(one.count for one in bins)
    return sum(one.count / count * abs(one.accuracy - one.confidence) for one in bins)


def save_reliability(path: Path, bins: Sequence[Bin], title: str) -> None:
    """Draw accuracy over confidence, with the number of predictions at each point."""
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0.5, 1], [0.5, 1], color="grey", linestyle="--", label="calibrated")
    axes.plot([one.confidence for one in bins], [one.accuracy for one in bins], marker="o", label="held out")
    for one in bins:
        axes.annotate(
            str(one.count), (one.confidence, one.accuracy), xytext=(4, -10), textcoords="offset points"
        )
    axes.set(xlabel="confidence", ylabel="accuracy", title=title, xlim=(0.48, 1.02))
    axes.legend()
    figure.savefig(path, dpi=120)
