"""Pictures of learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from rlgf.compare.comparison import Comparison
from rlgf.compare.finished import Authors, Cell, Finished
from rlgf.terminal import visible

mpl.use("Agg")


def draw_curves(comparison: Comparison, runs: Mapping[Cell, Finished], authors: Authors) -> list[Path]:
    """One picture a setting that has a reward: the validation's over policy tokens, the mean over seeds and its range."""
    paths = []
    for setting in comparison.settings:
        curves: dict[str, list[Sequence[tuple[float, float]]]] = {}
        for (where, algorithm, _), run in runs.items():
            if where == setting and run.curve:
                curves.setdefault(algorithm, []).append(run.curve)
        if not curves:
            continue
        levels = {
            name: totals["reward"]
            for name, totals in authors[setting].items()
            if name.startswith("guide") and "reward" in totals
        }
        path = comparison.results / f"{comparison.name}-{setting}.png"
        save_curves(path, f"{comparison.name}, {setting}", curves, levels)
        paths.append(path)
    return paths


def save_curves(
    path: Path,
    title: str,
    curves: Mapping[str, Sequence[Sequence[tuple[float, float]]]],
    levels: Mapping[str, float],
) -> None:
    """Draw curves of (policy tokens, reward), several runs a name, and horizontal lines at levels.

    Where runs of a name were evaluated more or less often, the shorter are stretched to as many points as the longest,
    so that the mean ends where the runs end.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes: Any = figure.subplots()
    for name, runs in curves.items():
        count = max(len(run) for run in runs)
        points = np.array([_stretched(run, count) for run in runs])
        tokens, rewards = points[:, :, 0].mean(axis=0), points[:, :, 1]
        (line,) = axes.plot(tokens, rewards.mean(axis=0), marker="o", markersize=3, label=_shown(name))
        axes.fill_between(
            tokens, rewards.min(axis=0), rewards.max(axis=0), alpha=0.12, color=line.get_color()
        )
    for name, level in levels.items():
        axes.axhline(level, linestyle="--", color="grey", linewidth=1)
        axes.annotate(_shown(name), (0, level), xytext=(2, 3), textcoords="offset points", color="grey")
    axes.set(
        title=_shown(title), xlabel="tokens sampled by the policy in training", ylabel="validation reward"
    )
    axes.legend(frameon=False, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the date in the file the same curves give the same bytes.
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _stretched(run: Sequence[tuple[float, float]], count: int) -> Any:
    """A curve at ``count`` places from its first point to its last, on straight lines between its points."""
    places = np.linspace(0, len(run) - 1, count)
    return np.stack([np.interp(places, np.arange(len(run)), column) for column in np.transpose(run)], axis=1)


def _shown(name: str) -> str:
    """A name as it is: what stands between two dollars would be drawn as a formula."""
    return visible(name).replace("$", r"\$")
