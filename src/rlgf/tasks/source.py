"""Where the rows of a task come from: files of your own, or a data set of the hub."""

from __future__ import annotations

import math
import string
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, model_validator

from rlgf.chat import is_chat, read_messages
from rlgf.errors import UserError, shown
from rlgf.strict import Strict
from rlgf.tasks.base import check_split
from rlgf.tasks.rows import Row, Rows, Samples, file_rows, table_rows
from rlgf.tasks.textfiles import known_encoding
from rlgf.types import Messages, Sample

CHECKED = 10_000
"""Rows that are checked when a split is loaded; those after them when they are asked for."""


class Files(Strict):
    """Files of JSON, CSV, TSV or Parquet, or a data set of the hub."""

    train: Path | tuple[Path, ...] = ()
    validation: Path | tuple[Path, ...] = ()
    data: str | None = None
    """A data set of the hub, instead of files."""
    encoding: Annotated[str, AfterValidator(known_encoding)] = "utf-8"
    """The encoding of text files, such as 'cp1252' or 'utf-16'."""
    subset: str | None = None
    splits: dict[Literal["train", "validation", "test"], str] = {}
    """The names of splits in the hub's data set, or parts of them such as 'train[:10%]', where they are not the same as here."""

    @model_validator(mode="after")
    def _one_source(self) -> Files:
        if (self.data is None) == (self.train == ()):
            raise ValueError(
                "give either files ('train', 'validation', ...) or 'data', a data set of the hub"
            )
        beside = ("validation", "test") if self.data is not None else ("subset", "splits")
        for name in beside:
            if getattr(self, name, None):
                kind = "a data set of the hub" if self.data is not None else "files"
                raise ValueError(f"'{name}' does not go with {kind}, and would not be read: leave it out")
        return self

    def rows(self, split: str) -> Rows:
        """
        Raises:
            UserError: they cannot be read, or there are none.
        """
        if self.data is not None:
            named: dict[str, str] = dict(self.splits.items())
            return table_rows(self.data, {"name": self.subset, "split": named.get(split, split)})
        files = getattr(self, split)
        return file_rows((files,) if isinstance(files, Path) else files, self.encoding)


class Source(Files):
    """The options of tasks that read files or a data set of the hub; no task by itself.

    Rows are read when they are needed, so a data set need not fit into memory.
    """

    test: Path | tuple[Path, ...] = ()

    def split_rows(self, split: str, task: str) -> Rows:
        """The rows of a split.

        Args:
            task: how a message calls the task.

        Raises:
            UserError: there is no such split, or it cannot be read.
        """
        check_split(split, task)
        if self.data is None and not getattr(self, split):
            raise UserError(f"task '{task}' has no file for the split '{split}': give the option '{split}'.")
        return self.rows(split)


def checked(rows: Rows, make: Callable[[Row, str], Sample]) -> Samples:
    """The rows as samples, in their order; the first 10,000 are made once to check them.

    Args:
        make: a row, and what a message calls it, to a sample.

    Raises:
        UserError: ``make`` refused a row.
    """
    samples = Samples(rows, make)
    for _ in islice(samples, CHECKED):
        pass
    return samples


def field(row: Row, name: str, place: str, hint: str = "") -> Any:
    """The value of a column; a list where it is an array or a tuple, as in tables of pandas and under ``with_format``.

    Args:
        place: what a message calls the row.
        hint: what a message says is to be done, such as "set the option 'prompt_field'".

    Raises:
        UserError: the row has no such column; names those that it has.
    """
    if name not in row:
        there = ", ".join(sorted(row)) or "none"
        raise UserError(f"{place} has no field '{name}'{': ' + hint if hint else ''}. Fields: {there}.")
    value = row[name]
    if isinstance(value, tuple):
        return list(value)
    return value.tolist() if hasattr(value, "tolist") else value


def side(value: Any, name: str, place: str, hint: str = "") -> str | Messages:
    """The text or the messages of a chat that a column holds.

    Args:
        hint: what a message says is to be done where the value is absent.

    Raises:
        UserError: it holds something else.
    """
    if isinstance(value, list) or is_chat(value):
        return read_messages(value, name, place)
    if not isinstance(value, str):
        remedy = f": {hint}" if hint and is_absent(value) else ""
        raise UserError(
            f"{place}: '{name}' must be a text or the messages of a chat (it is {shown(value)}){remedy}."
        )
    return value


def texts(value: Any, name: str, place: str) -> tuple[str, ...]:
    """The references that a column holds: a text or a list of texts, none of them empty.

    Raises:
        UserError: it holds something else, nothing, or a text without words.
    """
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise UserError(f"{place}: '{name}' must be a text or a list of texts (it is {shown(value)}).")
    if not listed or not all(text.strip() for text in listed):
        raise UserError(
            f"{place}: '{name}' has an empty reference (it is {shown(value)}): each must hold words."
        )
    return tuple(listed)


def is_absent(value: Any) -> bool:
    """Whether a column holds nothing: null, or the NaN that stands for it in tables."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def template_parts(template: str) -> list[tuple[str, str | None]]:
    """A template as texts, each with the column whose value comes after it, or None.

    Raises:
        ValueError: a brace in it is neither a column's nor written twice.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{error}: {BRACES}") from error
    for _, name, spec, conversion in parts:
        if name is not None and (spec or conversion or not name.strip() or set(name) & set("\"'[].,\n")):
            written = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise ValueError(f"{{{written}}} names no column: {BRACES}")
    return [(text, name) for text, name, _, _ in parts]


BRACES = "write a column as {column}, and a brace that belongs to the text twice, as {{ or }}"


def value_text(value: Any, name: str, place: str, absent: str | None) -> str:
    """A column's value as text, for a template.

    Args:
        absent: what a value that is absent is; None refuses it.

    Raises:
        UserError: the value is absent, or neither a text nor a number.
    """
    if is_absent(value):
        if absent is None:
            raise UserError(
                f"{place}: '{name}' has no value (it is {'null' if value is None else value}): set the option 'absent' to "
                "what stands for it, such as '', or drop the row."
            )
        return absent
    if isinstance(value, bool):
        return str(value).lower()  # as JSON writes it
    if isinstance(value, list | dict | bytes):
        raise UserError(
            f"{place}: '{name}' must be a text or a number to stand in a template (it is {shown(value)})."
        )
    return str(value)
