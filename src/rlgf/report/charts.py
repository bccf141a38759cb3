"""Which metrics are drawn where, and their curves: a thin line a seed, a band for the interval over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rlgf.evaluation.statistics import interval
from rlgf.report.groups import Group
from rlgf.terminal import visible

Point = TypeVar("Point")


@dataclass(frozen=True)
class Chart:
    """The metric of one picture."""

    title: str
    metric: str
    says: str = ""
    """How to read it."""


SECTIONS: Mapping[str, Sequence[Chart]] = {
    "Reward": (
        Chart(
            "Validation reward", "validation/reward", "Of texts for held-out prompts, by the policy alone."
        ),
        Chart(
            "Judge", "validation/judge", "The same texts by another scorer: it should rise with the reward."
        ),
        Chart("Training reward", "reward", "Of each update's episodes, texts with help among them."),
    ),
    "Help": (
        Chart(
            "Reward with help", "reward_helped", "Of episodes that another than the policy wrote a part of."
        ),
        Chart("Reward without help", "reward_alone", "Of episodes that the policy wrote alone."),
        Chart("Share with help", "helped"),
        Chart("Length of help", "help_tokens", "Tokens by others in each episode that has any."),
        Chart(
            "Guide's texts, less probable by",
            "guide_gap",
            "Nats per token than the policy's own, both under the policy's start.",
        ),
        Chart("Guide's texts without an end", "guide_cut", "Share of those that it was to finish."),
        Chart("Guide's texts without a word", "guide_blank", "Share of those that it was to write."),
        Chart("Hints cut", "hint_cut", "Share of hints for which their prompt had no room, or not all."),
        Chart("Prompts solved", "prompts_solved", "Share of prompts that a text without help ever solved."),
        Chart(
            "Prompts stuck",
            "prompts_stuck",
            "Share of prompts whose last visit had no success, with help or without.",
        ),
        Chart(
            "Help that sufficed",
            "prompts_help",
            "Share of its author's text that began what last succeeded, a mean over prompts.",
        ),
    ),
    "Learning": (
        Chart("KL to the start", "kl", "Nats per token, over the policy's tokens."),
        Chart("Entropy", "entropy", "Nats per token. Towards 0 the policy always writes the same."),
        Chart("Response length", "response_tokens", "Tokens, the end of the text included."),
        Chart("Clip fraction", "clip_fraction", "Share of tokens whose ratio is outside of the clip range."),
        Chart(
            "Explained variance", "explained_variance", "Of the returns, by the critic: 1 is all, 0 is none."
        ),
        Chart(
            "KL of an update",
            "update_kl",
            "Nats per token from the policy before the update to the one in training, a mean over its steps.",
        ),
        Chart(
            "KL at the first step",
            "first_step_kl",
            "The same at an update's first step: 0 but for rounding.",
        ),
        Chart("Gradient norm", "gradient_norm", "Of the policy, before clipping."),
        Chart("Policy loss", "policy_loss"),
        Chart("Value loss", "value_loss"),
        Chart("KL coefficient", "kl_coefficient"),
    ),
    "Guide": (
        Chart("Answers asked for", "guide_calls", "Per update."),
        Chart("Answers from the cache", "guide_cached", "Per update."),
        Chart("Cost", "guide_cost", "Per update, in the currency of the recipe's prices."),
        Chart("Tokens of answers", "guide_completion_tokens", "Per update."),
        Chart("Waiting", "guide_waited_seconds", "Seconds that training stood still for answers."),
        Chart("Overlap", "guide_overlap", "Share of the guide's time that training did not wait for."),
    ),
    "Time": (
        Chart("Writing", "seconds_collect", "Seconds of an update."),
        Chart("Scoring", "seconds_assess", "Seconds of an update."),
        Chart("Learning", "seconds_learn", "Seconds of an update."),
        Chart("Tokens per second", "tokens_per_second", "Response tokens over the whole update."),
    ),
}
FEWEST = 3
"""Runs that an interval is drawn for: over two it is 13 standard errors wide and would hide all curves."""
_NEVER = ("update", "seconds", "policy_tokens", "guide_tokens", "warnings")


def sections(groups: Sequence[Group], step: int = 1) -> list[dict[str, Any]]:
    """Every chart that has anything to draw, section by section; last whatever else was logged.

    Args:
        step: of how many points of a curve one is kept, besides the last.
    """
    drawn = {chart.metric for charts in SECTIONS.values() for chart in charts}
    found = [
        {"title": title, "charts": [*_drawn(charts, groups, step)], "rest": False}
        for title, charts in SECTIONS.items()
    ]
    others = [
        Chart(visible(name), name) for name in _names(groups) if name not in drawn and name not in _NEVER
    ]
    found.append({"title": "All other metrics", "charts": [*_drawn(others, groups, step)], "rest": True})
    return [section for section in found if section["charts"]]


def frontiers(groups: Sequence[Group], step: int = 1) -> list[dict[str, Any]]:
    """Reward, and the judge, against KL: what was gained for how far the policy went from its start."""
    found: list[dict[str, Any]] = []
    for title, x, y in (
        ("Reward against KL", "validation/kl", "validation/reward"),
        ("Judge against KL", "validation/kl", "validation/judge"),
        ("Training reward against KL", "kl", "reward"),
    ):
        paths = []
        for number, group in enumerate(groups):
            for run, label in zip(group.runs, group.labels, strict=True):
                rewards = dict(run.series(y))
                points = [(kl, rewards[update], update) for update, kl in run.series(x) if update in rewards]
                points = _every(points, step)
                if len(points) > 1:
                    kls, ys, updates = zip(*points, strict=True)
                    paths.append(
                        {
                            "group": number,
                            "label": visible(label),
                            "x": _short(kls),
                            "y": _short(ys),
                            "updates": updates,
                        }
                    )
        if paths and not (title.startswith("Training") and found):
            found.append({"title": title, "metric": y, "paths": paths, "says": ""})
    return found


def curve(group: Group, metric: str, step: int = 1) -> dict[str, Any] | None:
    """One group's curve: its runs' lines, their mean, and its 95% interval where enough have a value; else None."""
    series_of = [run.series(metric) for run in group.runs]
    runs = list(zip(group.labels, series_of, strict=True))
    runs = [(label, series) for label, series in runs if series]
    if not runs:
        return None
    drawn = [(visible(label), _every(series, step)) for label, series in runs]
    lines = [{"label": label, "x": [u for u, _ in s], "y": _short([v for _, v in s])} for label, s in drawn]
    if len(runs) == 1:
        return {"lines": lines}
    at: dict[int, list[float]] = {}
    for _, series in runs:
        for update, value in series:
            at.setdefault(update, []).append(value)
    # Thinned after the means are taken: runs that begin at other updates keep other points.
    updates = _every(sorted(at), step)
    means = [interval(at[update]) for update in updates]
    half = [found.half_width if found.count >= FEWEST else math.nan for found in means]
    return {
        "lines": lines,
        "x": updates,
        "mean": _short([found.mean for found in means]),
        "low": _short([found.mean - h for found, h in zip(means, half, strict=True)]),
        "high": _short([found.mean + h for found, h in zip(means, half, strict=True)]),
    }


def _drawn(charts: Sequence[Chart], groups: Sequence[Group], step: int) -> Iterator[dict[str, Any]]:
    for chart in charts:
        curves = []
        for number, group in enumerate(groups):
            found = curve(group, chart.metric, step)
            if found is not None:
                curves.append({"group": number, **found})
        if curves:
            yield {"title": chart.title, "metric": chart.metric, "says": chart.says, "curves": curves}


def _every(points: Sequence[Point], step: int) -> list[Point]:
    return [point for place, point in enumerate(points) if place % step == 0 or place == len(points) - 1]


def _names(groups: Sequence[Group]) -> list[str]:
    found: dict[str, None] = {}
    for group in groups:
        for run in group.runs:
            for row in run.metrics:
                found |= dict.fromkeys(row)
    return list(found)


def _short(values: Sequence[float]) -> list[float | None]:
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values]
