"""The runs of a comparison as one page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rlgf.compare.comparison import Comparison
from rlgf.report.groups import Group
from rlgf.report.page import render
from rlgf.report.runs import read_run

MOST_BYTES = 900_000
"""Of the page, which is kept with the tables: small enough for a repository and for a mail."""


def write_page(comparison: Comparison, cells: Iterable[tuple[str, str, int]]) -> Path:
    """Write the report of finished runs beside the tables; the seeds of an algorithm in a setting are one group."""
    grid: dict[str, list[tuple[str, str, int]]] = {}
    for setting, algorithm, seed in cells:
        name = algorithm if len(comparison.settings) == 1 else f"{setting}, {algorithm}"
        grid.setdefault(name, []).append((setting, algorithm, seed))
    groups = [
        Group(
            name,
            [read_run(comparison.folder(*cell)) for cell in sorted(members)],
            [f"{name}, seed {seed}" for _, _, seed in sorted(members)],
        )
        for name, members in sorted(grid.items(), key=lambda found: _place(comparison, found[1][0]))
    ]
    path = comparison.results / f"{comparison.name}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(groups, {}, comparison.name, MOST_BYTES), encoding="utf-8")
    return path


def _place(comparison: Comparison, cell: tuple[str, str, int]) -> tuple[int, int]:
    """Where a setting and an algorithm stand in the comparison."""
    return [*comparison.settings].index(cell[0]), [*comparison.algorithms].index(cell[1])
