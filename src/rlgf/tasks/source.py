"""Where the rows of a task come from: files of your own, or a data set of the hub."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from rlgf.errors import UserError
from rlgf.tasks.base import check_split
from rlgf.tasks.rows import Row, Rows, Samples, file_rows, table_rows
from rlgf.types import Sample

_CHECKED = 10_000
"""Rows that are checked when a split is loaded; those behind them when they are asked for."""


class Source(BaseModel):
    """The options of tasks that read files or a data set of the hub; no task by itself.

    Rows are read when they are needed, so a data set need not fit into memory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: Path | tuple[Path, ...] = ()
    validation: Path | tuple[Path, ...] = ()
    test: Path | tuple[Path, ...] = ()
    data: str | None = None
    """A data set of the hub, instead of files."""
    subset: str | None = None
    splits: dict[str, str] = {}
    """What the hub's data set calls a split, where it is not 'train', 'validation' or 'test'."""

    @model_validator(mode="after")
    def _one_source(self) -> Source:
        if (self.data is None) == (self.train == ()):
            raise ValueError(
                "give either files ('train', 'validation', 'test') or 'data', a data set of the hub"
            )
        return self

    def samples(self, split: str, task: str, make: Callable[[Row, str], Sample]) -> Samples:
        """The rows of a split as samples, in their order; the first 10,000 are made once to check them.

        Args:
            task: how a message calls the task.
            make: a row, and what a message calls it, to a sample.

        Raises:
            UserError: the split is not to be had, or ``make`` refused a row.
        """
        check_split(split, task)
        samples = Samples(self._rows(split, task), make)
        for _ in islice(samples, _CHECKED):
            pass
        return samples

    def _rows(self, split: str, task: str) -> Rows:
        if self.data is not None:
            return table_rows(self.data, {"name": self.subset, "split": self.splits.get(split, split)})
        files = getattr(self, split)
        files = (files,) if isinstance(files, Path) else files
        if not files:
            raise UserError(f"task '{task}' has no file for the split '{split}': give the option '{split}'.")
        return file_rows(files)


def field(row: Row, name: str, place: str, hint: str = "") -> Any:
    """The value of a column.

    Args:
        place: what a message calls the row.
        hint: what a message says is to be done, such as "set the option 'prompt_field'".

    Raises:
        UserError: the row has no such column; names those that it has.
    """
    if name not in row:
        there = ", ".join(sorted(row)) or "none"
        raise UserError(f"{place} has no field '{name}'{': ' + hint if hint else ''}. Fields: {there}.")
    return row[name]


def texts(value: Any, name: str, place: str) -> tuple[str, ...]:
    """The references that a column holds: a text or a list of texts, none of them empty.

    Raises:
        UserError: it holds something else, nothing, or a text without words.
    """
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise UserError(f"{place}: '{name}' must be a text or a list of texts (it is {value!r}).")
    if not listed or not all(text.strip() for text in listed):
        raise UserError(f"{place}: '{name}' has an empty reference (it is {value!r}): each must hold words.")
    return tuple(listed)
