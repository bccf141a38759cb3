"""The table of algorithms for the terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from rlgf.algorithms import ALGORITHMS, Algorithm


def algorithm_table() -> Group:
    """Who writes what and which loss reads it, one row an algorithm; then equations and papers."""
    rows = Table(title="Algorithms")
    for column in (
        "name",
        "roll-in",
        "roll-out",
        "policy loss reads",
        "value loss reads",
        "KL penalty in the",
        "advantage or loss",
    ):
        rows.add_column(column, overflow="fold")
    sources = Table(title="Where they come from", show_lines=True)
    for column in ("name", "what it does", "equation", "paper"):
        sources.add_column(column, overflow="fold")
    for algorithm in ALGORITHMS.values():
        cells = (
            _cells(algorithm)
            if isinstance(algorithm, Algorithm)
            else [f"{algorithm.explore.name} or {algorithm.imitate.name}"]
        )
        rows.add_row(*map(Text, [algorithm.name, *cells]))
        sources.add_row(*map(Text, [algorithm.name, algorithm.summary, algorithm.equation, algorithm.paper]))
    return Group(rows, sources)


def _cells(row: Algorithm) -> list[str]:
    often = (
        f"p = {row.rollin_prob.start:g}" if row.rollin_members is None else f"{row.rollin_members} a group"
    )
    return [
        "" if row.rollin is None else f"{row.rollin.name.lower()}, {often}",
        row.rollout.name.lower(),
        ", ".join([str(row.policy_loss_on), *([f"rollin: {row.rollin_loss}"] if row.rollin_loss else [])]),
        "" if row.value_loss_on is None else f"{row.value_loss_on}: V of {row.critic}",
        row.kl_penalty or "",
        " + ".join(
            name
            for name in (
                f"{row.policy_loss} by {row.advantage}" if row.paired else row.advantage or row.policy_loss,
                "distillation" if row.distills else None,
            )
            if name is not None
        ),
    ]
