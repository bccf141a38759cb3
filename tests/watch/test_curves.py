"""Curves in a terminal: which are drawn, of what, and how large."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from rlgf.report.runs import Run
from rlgf.watch.curves import charts

LINES = [{"update": update, "reward": update / 10, "kl": 0.5} for update in range(1, 6)]


def drawn(metrics: list[dict[str, Any]], most: int = 6, width: int = 60, height: int = 8) -> list[str]:
    found = []
    for chart in charts(Run(Path("run"), {}, metrics, []), width, height, most):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(chart)
        found.append(console.export_text())
    return found


def test_what_was_logged_is_drawn_and_nothing_else() -> None:
    first, second = drawn([*LINES, {"update": 5, "validation/reward": 0.9}])
    assert "reward" in first.splitlines()[0]
    assert "training 0.5" in first
    assert "validation 0.9" in first
    assert "0.1 to 0.9" in first
    assert "KL, nats per token" in second
    assert drawn([]) == []


def test_charts_keep_to_their_size_and_number() -> None:
    (only,) = drawn(LINES, most=1, width=30, height=6)
    lines = only.splitlines()
    assert len(lines) == 6
    assert {len(line) for line in lines} == {30}


def test_a_rising_curve_rises() -> None:
    rows = [row[1:-1] for row in drawn(LINES, most=1)[0].splitlines()[2:-1]]
    filled = [[i for i, mark in enumerate(row) if mark.strip() and mark != "⠀"] for row in rows]
    filled = [places for places in filled if places]
    assert len(filled) > 1
    assert min(filled[0]) > min(filled[-1]), "the highest dots are the last ones"
