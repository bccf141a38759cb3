"""Data that Python hands over: lists of samples or of dictionaries, and data sets of `datasets`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rlgf.errors import UserError, one_line
from rlgf.registry import build_from
from rlgf.tasks.base import SPLITS, check_sample, check_split
from rlgf.tasks.data import CONVERSATIONS, REFERENCES, DataTask
from rlgf.tasks.rows import Row, Samples
from rlgf.tasks.source import Source
from rlgf.types import Sample

_SOURCES = frozenset(Source.model_fields)


class MemoryTask:
    """A task of data that is at hand, read by column names as the task 'data' reads files.

    The prompt is in the column 'prompt'; the reference in 'references', 'completion' or 'chosen', where one of these is
    there, and the worse text of a pair in 'rejected'. Without a column 'prompt', 'messages' or 'conversations' hold both.
    Options of the task 'data' name others.
    """

    def __init__(self, *, options: Mapping[str, Any] | None = None, **splits: Any) -> None:
        """
        Args:
            options: those of the task 'data'; the ones that say where its files are do not count.
            splits: 'train', and 'validation' and 'test' where they are given: sequences of `Sample` or of mappings, such
                as a `datasets.Dataset`. For a split that is not given the one before it stands in.

        Raises:
            UserError: a split is not a sequence of samples or of mappings, or is empty.
        """
        self.options = {name: value for name, value in (options or {}).items() if name not in _SOURCES}
        self._splits = {name: data for name, data in splits.items() if data is not None}
        for name, data in self._splits.items():
            _check(name, data)

    def reading(self, options: Mapping[str, Any]) -> MemoryTask:
        """The same data, read by these options."""
        return MemoryTask(options=options, **self._splits)

    def source(self, split: str) -> str:
        """The split whose data are read: itself, or of one that is not given the last that is given before it."""
        before = SPLITS[: SPLITS.index(split) + 1]
        return next(name for name in reversed(before) if name in self._splits)

    def load(self, split: str) -> Sequence[Sample]:
        """The samples of a split, in their order.

        Raises:
            UserError: there is no such split, or a row does not hold what it should; it names the row.
        """
        check_split(split, "in memory")
        data = self._splits[self.source(split)]
        if not len(data) or isinstance(data[0], Sample):
            return list(data)
        samples = Samples(_Rows(data, split), self._reader(data)._sample)
        for number, sample in enumerate(samples):
            check_sample(sample, samples.place(number))
        return samples

    def _reader(self, data: Any) -> DataTask:
        """A task that reads rows with these columns."""
        columns = _columns(data)
        prompted = self.options.get("prompt_field", "prompt") in columns
        known = REFERENCES if prompted else (*REFERENCES, *CONVERSATIONS)
        reference = next((name for name in known if name in columns), None)
        rejected = "rejected" if reference == "chosen" and "rejected" in columns else None
        found = {"train": "memory", "reference_field": reference, "rejected_field": rejected}
        reader: DataTask = build_from(_Reader, {**found, **self.options}, "task 'data'")
        return reader


class _Reader(DataTask):
    """The task 'data', which says what is to be done in Python."""

    hints: ClassVar[Mapping[str, str]] = {
        "prompt": "rename the column that holds it to 'prompt', or name it in the recipe as task: {name: data, options: "
        "{prompt_field: ...}}",
        "references": "give it to every row, or to none",
        "rejected": "give it to every row, or to none",
    }


def _columns(data: Any) -> Collection[str]:
    """The columns that any row has."""
    named = getattr(data, "column_names", None)
    if named is not None:
        return list(named)
    rows = (data[number] for number in range(len(data)))
    return {name for row in rows if isinstance(row, Mapping) for name in row}


def _check(name: str, data: Any) -> None:
    if isinstance(data, str | Path):
        raise UserError(f"'{name}' is the text '{data}': {_by_name(name, str(data))}.")
    if isinstance(data, Mapping) and data and all(hasattr(split, "column_names") for split in data.values()):
        raise UserError(
            f"'{name}' is a dictionary of the splits {', '.join(map(str, data))}: give one of them, such as "
            f"{name}=data['{next(iter(data))}']."
        )
    if isinstance(data, Mapping) and data and all(map(_is_column, data.values())):
        raise UserError(f"'{name}' is a dictionary of columns: give datasets.Dataset.from_dict({name}).")
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__") or isinstance(data, Mapping):
        stream = "list(data.take(1000))" if hasattr(data, "take") else "list(...)"
        raise UserError(
            f"'{name}' must be a data set or a list (it is a {type(data).__name__}); a stream can be made one "
            f"with {stream}."
        )
    if hasattr(data, "columns") and hasattr(data, "to_dict"):
        raise UserError(f"'{name}' is a table of pandas: give {name}.to_dict('records').")
    if len(data) and not isinstance(data[0], Sample | Mapping):
        raise UserError(
            f"'{name}' must hold dictionaries such as {{'prompt': ...}} (its first entry is {one_line(repr(data[0]), 60)})."
        )


def _is_column(values: Any) -> bool:
    return hasattr(values, "__len__") and not isinstance(values, str | Mapping)


def _by_name(split: str, text: str) -> str:
    """The remedy where data is only named."""
    if "://" in text:
        return "download it, and give its rows as a list or a data set"
    option = f"{split}: {text}" if Path(text).suffix else f"data: {text}"
    return f"data by name is the recipe's task: {{name: data, options: {{{option}}}}}"


class _Rows:
    def __init__(self, data: Any, split: str) -> None:
        self._data = data
        self._split = split

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, number: int) -> Row:
        row: Row = self._data[number]
        if not isinstance(row, Mapping):
            raise UserError(
                f"{self.place(number)} must be a dictionary, as the first one is (it is {row!r:.60})."
            )
        return row

    def place(self, number: int) -> str:
        return f"row {number} of '{self._split}'"
