"""A run as the terminal shows it: how far it is, curves, the guide, warnings, and the newest texts by their authors."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import plotille
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rlgf.report.runs import Run, is_number
from rlgf.run.warnings import Watch
from rlgf.terminal import append_part, number, printable

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
        legend.append(f"{name} {number(series[-1][1])}  ", style=colour)
    legend.append(f"{number(low, 3)} to {number(high, 3)}", style="dim")
    body = Text.from_ansi(canvas.plot(), no_wrap=True, overflow="crop")
    return Panel(Text("\n").join([legend, body]), title=title, title_align="left", width=width, height=height)


_CHART_LINES = 9
_RECENT = 10
"""Updates that the time left is estimated from."""
_PROMPT = 80
_RESPONSE = 400
"""Characters that are shown of a text."""


def view(run: Run, *, goes_on: bool, width: int, height: int) -> RenderableType:
    """
    Args:
        goes_on: whether a process still works on it.
        width: columns that there are.
        height: lines that there are: what stands last is left out first.
    """
    across = 2 if width >= 80 else 1
    rows = 1 if height < 34 else 2
    drawn = charts(run, width // across, _CHART_LINES, across * rows)
    curves = Table.grid()
    for start in range(0, len(drawn), across):
        curves.add_row(*drawn[start : start + across])
    parts = [_head(run, goes_on), curves, _guide(run), *_warned(run)]
    taken = 7 + _CHART_LINES * ((len(drawn) + across - 1) // across)
    return Group(*(part for part in parts if part is not None), _texts(run, max(2, (height - taken) // 3)))


def time_left(run: Run) -> float | None:
    """Seconds until the last update, at the pace of the newest ones; None before there are any."""
    recent = [seconds for _, seconds in run.series("seconds")[-_RECENT:]]
    return (run.planned - run.updates) * sum(recent) / len(recent) if recent else None


def duration(seconds: float) -> str:
    """Such as ``42 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _head(run: Run, goes_on: bool) -> RenderableType:
    algorithm = next((row["algorithm"] for row in reversed(run.metrics) if "algorithm" in row), "")
    left = time_left(run)
    if run.totals is not None and not goes_on:
        numbers = "  ".join(
            f"{name} {number(run.totals[name])}" for name in ("reward", "judge", "kl") if name in run.totals
        )
        state = Text(f"finished in {duration(run.seconds)}; test: {numbers}", style="green")
    elif not goes_on:
        state = Text("stopped; `rlgf train ... --resume` goes on, or the same `rlgf compare`", style="yellow")
    elif run.updates >= run.planned:
        state = Text("tests the policy", style="green")
    else:
        state = Text("no update yet" if left is None else f"about {duration(left)} left", style="green")
    line = Table.grid(padding=(0, 2))
    line.add_row(
        Text(printable(run.name), style="bold"),
        Text(printable(str(algorithm))),
        ProgressBar(total=max(run.planned, 1), completed=run.updates, width=24),
        Text(f"{run.updates} of {run.planned}"),
    )
    return Group(line, state)


def _guide(run: Run) -> RenderableType | None:
    """What a remote guide was asked in all; None for a guide that keeps no account."""
    sums = {
        name: sum((value for _, value in run.series(f"guide_{name}")), 0.0)
        for name in (
            "calls",
            "cached",
            "prompt_tokens",
            "completion_tokens",
            "cost",
            "empty",
            "waited_seconds",
        )
    }
    if not (sums["calls"] or sums["cached"]):
        return None
    budget = (run.config.get("guide") or {}).get("budget") or {}
    limits = {
        name: f" of {limit:,.10g}"
        for name in ("calls", "tokens", "cost")
        if is_number(limit := budget.get(name))
    }
    tokens = sums["prompt_tokens"] + sums["completion_tokens"]
    told = [
        f"{sums['calls']:,.0f}{limits.get('calls', '')} answers asked for",
        f"{sums['cached']:,.0f} from the cache",
        f"{tokens:,.0f}{limits.get('tokens', '')} tokens",
        f"cost {number(sums['cost'])}{limits.get('cost', '')}",
        f"{sums['empty']:,.0f} empty",
        f"{duration(sums['waited_seconds'])} waited",
    ]
    return Text.assemble(("guide  ", "yellow"), ", ".join(told))


def _warned(run: Run) -> list[RenderableType]:
    found = Watch(run.config).look(run.metrics)
    return [Text(f"! update {one.update}: {printable(one.sentence)}", style="yellow") for one in found]


def _texts(run: Run, most: int) -> RenderableType:
    """The newest texts of training and of validation, in turns."""
    newest = {}
    for split in ("train", "validation"):
        of_split = [sample for sample in run.samples if sample.get("split") == split]
        last = max((sample["update"] for sample in of_split), default=0)
        answers = {sample.get("prompt"): sample for sample in of_split if sample["update"] == last}
        newest[split] = list(answers.values())  # one for each prompt
    turns = itertools.chain.from_iterable(itertools.zip_longest(*newest.values()))
    kept = [sample for sample in turns if sample is not None][:most]
    return Padding(Group(*(_text(sample) for sample in kept)), (1, 0, 0, 0))


def _text(sample: Mapping[str, Any]) -> Text:
    reward = sample.get("reward")
    paid = number(reward, 3) if is_number(reward) else "-"
    split = printable(str(sample.get("split", "")))[:10]
    line = Text().append(f"{sample['update']:>4} {split:<10} {paid:>7}  ", style="dim")
    prompt = printable(str(sample.get("prompt", "")))
    line.append(("…" if len(prompt) > _PROMPT else "") + prompt[-_PROMPT:] + " ", style="dim")
    tokens, start, room = sample["tokens"], 0, _RESPONSE
    for author, count in sample["authors"]:
        text = printable("".join(map(str, tokens[start : start + count])))
        append_part(line, str(author), text[:room] + ("…" if len(text) > room else ""))
        start, room = start + count, max(0, room - len(text))
    return line
