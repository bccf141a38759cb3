"""Curves of a run's metrics, drawn with dots in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotille
from rich.console import RenderableType
from rich.panel import Panel
from rich.text import Text

from rlgf.report.runs import Run

_COLOURS = ("cyan", "green")
"""Of the lines of one chart, in their order."""

CHARTS: Mapping[str, Mapping[str, str]] = {
    "reward": {"training": "reward", "validation": "validation/reward"},
    "KL, nats per token": {"training": "kl", "validation": "validation/kl"},
    "reward with help and without": {"with": "reward_helped", "without": "reward_alone"},
    "entropy, nats per token": {"training": "entropy"},
    "response length, tokens": {"training": "response_tokens"},
    "explained variance": {"critic": "explained_variance"},
}
"""Titles, and of each the metrics by the names of their lines."""

Series = Sequence[tuple[int, float]]


def charts(run: Run, width: int, height: int, most: int) -> list[RenderableType]:
    """The first charts that have anything to draw.

    Args:
        width: columns of one, its frame included.
        height: lines of one, its frame included.
        most: how many.
    """
    found = list[RenderableType]()
    for title, named in CHARTS.items():
        lines = {name: series for name, metric in named.items() if (series := run.series(metric))}
        if lines and len(found) < most:
            found.append(_chart(title, lines, max(run.planned, run.updates, 1), width, height))
    return found


def _chart(title: str, lines: Mapping[str, Series], end: int, width: int, height: int) -> RenderableType:
    values = [value for series in lines.values() for _, value in series]
    low, high = min(values), max(values)
    margin = (high - low) * 0.02 or 0.5
    canvas = plotille.Canvas(
        max(4, width - 4),
        max(1, height - 3),
        xmin=0.0,
        xmax=float(end),
        ymin=low - margin,
        ymax=high + margin,
        mode="names",
    )
    legend = Text()
    for colour, (name, series) in zip(_COLOURS, lines.items(), strict=False):
        for (x, y), (x_next, y_next) in zip(series, [*series[1:], series[-1]], strict=True):
            canvas.line(x, y, x_next, y_next, color=colour)
        legend.append(f"{name} {series[-1][1]:.4g}  ", style=colour)
    legend.append(f"{low:.3g} to {high:.3g}", style="dim")
    body = Text.from_ansi(canvas.plot(), no_wrap=True, overflow="crop")
    return Panel(Text("\n").join([legend, body]), title=title, title_align="left", width=width, height=height)
