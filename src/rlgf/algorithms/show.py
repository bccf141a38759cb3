"""The table of algorithms for the terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from rlgf.algorithms import ALGORITHMS, Algorithm, Term, View


def algorithm_table() -> Group:
    """Who writes what and which loss reads it, one row per algorithm; then equations and papers."""
    rows = Table(title="Algorithms")
    for column in (
        "name",
        "roll-in",
        "roll-out",
        "advantage",
        "terms: loss on the tokens",
        "KL penalty in the",
    ):
        rows.add_column(column, overflow="fold", no_wrap=column == "name")
    sources = Table(title="Where they come from", show_lines=True)
    for column in ("name", "what it does", "equation", "paper"):
        sources.add_column(column, overflow="fold", no_wrap=column == "name")
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
    script, help = row.script, row.help
    often = f"p = {help.probability.start:g}" if help.members is None else f"{help.members} a group"
    often += "" if help.gate is None else " where the gate opens"
    terms = [f"{term.loss} on {_tokens(term)}{_told(term, row, often)}" for term in row.terms.values()]
    return [
        "" if script.rollin is None else f"{script.rollin.name.lower()}, {often}",
        script.rollout.name.lower() + (_hint(row, often) if script.hinted else ""),
        row.advantage or "",
        ", ".join(terms) + ("" if row.critic is None else f", V of the {row.critic}"),
        row.kl_penalty or "",
    ]


def _hint(row: Algorithm, often: str) -> str:
    hint = row.script.hint
    if hint is None:
        return ""
    columns = ", ".join(f"'{column}'" for column in hint.named_columns)
    origin = f"column {columns}" if hint.author is None else hint.author.name.lower()
    shares = " or ".join(f"{share:g}" for share in hint.shares)
    return f", {often} after a hint: {shares + ' of the ' if shares else ''}{origin}"


def _told(term: Term, row: Algorithm, often: str) -> str:
    return _hint(row, often) if row.script.guide_hinted and "guide_distribution" in term.reads else ""


def _tokens(term: Term) -> str:
    found = str(term.on) if term.select is None else f"{term.on} by {term.select.name}"
    return found if term.view is View.WRITTEN else f"{found} without the hint"
