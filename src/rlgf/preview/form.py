"""How what `rlgf check` says is laid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text


def titled(title: str) -> Text:
    """The title of a section."""
    return Text(f"\n{title}", style="bold")


def note(words: str) -> Text:
    """A sentence that should not be passed over."""
    return Text(words, style="yellow")


def topics(rows: Mapping[str, str]) -> Table:
    """Words by their topic."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for topic, words in rows.items():
        grid.add_row(topic, Text(words))
    return grid


def table(*columns: str, numbers: int = 0) -> Table:
    """A table without rows, whose last ``numbers`` columns hold numbers."""
    empty = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        right = place >= len(columns) - numbers
        empty.add_column(column, justify="right" if right else "left", overflow="fold")
    return empty


def span(numbers: Sequence[int]) -> str:
    """The least and the greatest of numbers in order."""
    return f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"
