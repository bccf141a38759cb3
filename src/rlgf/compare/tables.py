"""A comparison's numbers as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

from rlgf.compare.comparison import Comparison
from rlgf.compare.finished import Authors, Cell, Finished
from rlgf.evaluation.statistics import Interval, first_at, interval, paired_difference
from rlgf.jsontext import to_json

_COUNTS = ("policy tokens", "guide tokens", "tokens to level")
_EXPLAINED = {
    "output_perplexity": "'Output perplexity': of the texts under the start, or under 'evaluation.language_model'.",
    "reference_perplexity": "'Reference perplexity': of the data's own texts under the policy.",
}


def write_tables(comparison: Comparison, runs: Mapping[Cell, Finished], authors: Authors) -> list[Path]:
    """Write the three files into the results folder; the Markdown holds one table a setting."""
    rows = [
        row for setting in comparison.settings for row in _rows(comparison, setting, runs, authors[setting])
    ]
    base = comparison.results / comparison.name
    base.parent.mkdir(parents=True, exist_ok=True)
    markdown = base.with_suffix(".md")
    pictured = {where for (where, _, _), run in runs.items() if run.curve}
    markdown.write_text(_markdown(comparison, rows, pictured))
    with base.with_suffix(".csv").open("w", newline="") as file:
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    base.with_suffix(".json").write_text(to_json(rows, indent=1) + "\n")
    return [markdown, base.with_suffix(".csv"), base.with_suffix(".json")]


def _rows(
    comparison: Comparison,
    setting: str,
    runs: Mapping[Cell, Finished],
    authors: Mapping[str, Mapping[str, float]],
) -> list[dict[str, Any]]:
    """Rows of one setting: start, guide and reference text, then each algorithm that has finished runs."""
    rows: list[dict[str, Any]] = []
    for name, totals in authors.items():
        known = {m: totals[m] for m in comparison.metrics if m in totals}
        rows.append({"setting": setting, "who": name, "seeds": 1, **known})
    by_algorithm: dict[str, dict[int, Finished]] = {}
    for (where, algorithm, seed), run in runs.items():
        if where == setting:
            by_algorithm.setdefault(algorithm, {})[seed] = run
    baseline = by_algorithm.get(comparison.baseline, {})
    level = _level([run.curve for run in baseline.values() if run.curve])
    # Rewards are compared where the same is paid: a discriminator's have another scale than a verifier's.
    paid = comparison.config(setting, comparison.baseline, 0).reward
    alike = [name for name in by_algorithm if comparison.config(setting, name, 0).reward == paid]
    # A reward that can be fooled has a judge beside it, and pays for leaving the start.
    every = [run for name in alike for run in by_algorithm[name].values()]
    budget = _usual_kl([run.frontier for run in every]) if "judge" in _measured(comparison, every) else None
    for algorithm, finished in by_algorithm.items():
        row: dict[str, Any] = {"setting": setting, "who": algorithm, "seeds": len(finished)}
        measured = _measured(comparison, finished.values())
        for metric in measured:
            _put(row, metric, interval([run.totals[metric] for run in finished.values()]))
        if algorithm != comparison.baseline:
            both = set(measured).intersection(_measured(comparison, baseline.values()))
            both -= set() if algorithm in alike else {"reward"}
            for metric in filter(both.__contains__, _compared(comparison)):
                difference = paired_difference(
                    {seed: run.totals[metric] for seed, run in finished.items()},
                    {seed: run.totals[metric] for seed, run in baseline.items()},
                )
                if difference is not None:
                    _put(row, f"{metric} minus {comparison.baseline}", difference)
        rewarded = [run.frontier for run in finished.values() if run.frontier]
        if budget is not None and rewarded and algorithm in alike:
            _put(row, "reward at equal KL", interval([_reward_at(budget, frontier) for frontier in rewarded]))
            row["equal KL"] = budget
        if level is not None and algorithm in alike:
            reached = [t for run in finished.values() if (t := first_at(run.curve, level)) is not None]
            row["tokens to level"] = sum(reached) / len(reached) if reached else math.nan
            row["reached level"] = f"{len(reached)} of {len(finished)}"
        for author in ("policy", "guide"):
            row[f"{author} tokens"] = sum(run.tokens[author] for run in finished.values()) / len(finished)
        row["minutes a run"] = sum(run.seconds for run in finished.values()) / len(finished) / 60
        rows.append(row)
    return rows


def _measured(comparison: Comparison, runs: Collection[Finished]) -> list[str]:
    """The metrics that all of some runs have: without a judge or references there are none of theirs."""
    return [metric for metric in comparison.metrics if all(metric in run.totals for run in runs)]


def _level(curves: Sequence[Sequence[tuple[float, float]]]) -> float | None:
    """The mean final reward of the baseline; None where it has none, or did not rise and so is not a level to reach."""
    if not curves:
        return None
    start, end = (sum(curve[i][1] for curve in curves) / len(curves) for i in (0, -1))
    return end if end > start else None


def _compared(comparison: Comparison) -> list[str]:
    """Metrics of which a table has differences: the reward that was paid, and the judge's, which nobody was paid for."""
    return [metric for metric in ("reward", "judge") if metric in comparison.metrics]


def _usual_kl(frontiers: Sequence[Sequence[tuple[float, float]]]) -> float | None:
    """The median over runs of the KL at the last evaluation; None where runs did not measure it."""
    found = [frontier[-1][0] for frontier in frontiers if frontier and not math.isnan(frontier[-1][0])]
    return statistics.median(found) if found else None


def _reward_at(budget: float, frontier: Sequence[tuple[float, float]]) -> float:
    """The reward where the KL is last within the budget, on straight lines between evaluations; NaN if it never is.

    The highest reward within the budget would favour runs that are evaluated more often.
    """
    if frontier[-1][0] <= budget:
        return frontier[-1][1]
    for (kl, reward), (next_kl, next_reward) in reversed([*pairwise(frontier)]):
        if kl <= budget < next_kl:
            return reward + (next_reward - reward) * (budget - kl) / (next_kl - kl)
    return math.nan


def _put(row: dict[str, Any], name: str, value: Interval) -> None:
    row[name] = value.mean
    row[f"{name} half-width"] = value.half_width


def _markdown(comparison: Comparison, rows: list[dict[str, Any]], pictured: Collection[str]) -> str:
    differences = [f"{metric} minus {comparison.baseline}" for metric in _compared(comparison)]
    columns = [*comparison.metrics, *differences, "reward at equal KL"]
    columns = [name for name in columns if any(name in row for row in rows)]
    columns += [*_COUNTS, "reached level", "minutes a run"]
    page = f"{comparison.name}.html"
    lines = [
        f"# {comparison.name}",
        "",
        f"Written by `rlgf compare` on {date.today()}. Curves and texts of the runs whose folders were there: [{page}]({page})",
        "(save it, and open it in a browser).",
        "",
    ]
    if comparison.notes is not None:
        lines += [comparison.notes.read_text().strip(), ""]
    for setting in comparison.settings:
        lines += [f"## {setting}", ""]
        if setting in pictured:
            lines += [f"![{setting}]({comparison.name}-{setting}.png)", ""]
        lines.append("| | seeds | " + " | ".join(c.replace("_", " ") for c in columns) + " |")
        lines.append("|---" * (len(columns) + 2) + "|")
        for row in rows:
            if row["setting"] == setting:
                cells = [_cell(row, column) for column in columns]
                lines.append(f"| {row['who']} | {row['seeds']} | " + " | ".join(cells) + " |")
        lines.append("")
        budget = next(
            (row["equal KL"] for row in rows if row["setting"] == setting and "equal KL" in row), None
        )
        if budget is not None:
            lines += [
                f"Equal KL is {budget:.2f} nats per token, the median at the last evaluation of the runs in that",
                "column, which has the validation reward where a run's KL last is within it, on straight lines",
                "between evaluations.",
                "",
            ]
    lines.append(
        "Means over seeds with 95% t intervals. 'Policy tokens', 'guide tokens': written in training. 'Tokens to level': "
        "policy tokens until the validation reward first reaches the mean final validation reward of "
        f"{comparison.baseline}, over the runs that reach it."
    )
    lines[-1] += "".join(f" {text}" for column, text in _EXPLAINED.items() if column in columns)
    return "\n".join(lines) + "\n"


def _cell(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, str):
        return value
    whole, coarse = column in _COUNTS, column.endswith("perplexity") or column == "minutes a run"
    digits = 0 if whole else 1 if coarse else 3
    text = f"{value:z,.{digits}f}"
    half = row.get(f"{column} half-width")
    return text if half is None or math.isnan(half) else f"{text} ± {half:.{digits}f}"
