"""The table of algorithms for the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from rlgf.algorithms import ALGORITHMS, Algorithm


def algorithm_table() -> Table:
    """One row an algorithm; a mixture shows its two parts."""
    table = Table(title="Algorithms", show_lines=True)
    for column in (
        "name",
        "roll-in",
        "roll-out",
        "policy loss reads",
        "value loss reads",
        "advantage",
        "equation",
        "paper",
    ):
        table.add_column(column, overflow="fold")
    for algorithm in ALGORITHMS.values():
        if isinstance(algorithm, Algorithm):
            cells = _cells(algorithm)
        else:
            parts = f"{algorithm.explore.name} or {algorithm.imitate.name}"
            cells = [parts, "", "", "", "", algorithm.summary]
        table.add_row(*map(Text, [algorithm.name, *cells, algorithm.paper]))
    return table


def _cells(row: Algorithm) -> list[str]:
    rollin = "" if row.rollin is None else f"{row.rollin.name.lower()} ({row.rollin_prob.start:g})"
    return [
        rollin,
        row.rollout.name.lower(),
        str(row.policy_loss_on),
        str(row.value_loss_on or ""),
        str(row.advantage or ""),
        row.equation,
    ]
