"""Data that Python hands over: lists of samples or of dictionaries, and data sets of `datasets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlgf.errors import UserError
from rlgf.tasks.base import check_split
from rlgf.tasks.data import DataTask
from rlgf.tasks.rows import Row, Samples
from rlgf.types import Sample

_REFERENCES = ("references", "completion", "chosen", "messages")
"""Columns that hold a reference, as data sets of the hub call them; the first that there is counts."""


class MemoryTask:
    """A task of data that is at hand, read by column names as the task 'data' reads files.

    The prompt is in the column 'prompt'; the reference in 'references', 'completion', 'chosen' or 'messages', where one
    of these is there, and the worse text of a pair in 'rejected'.
    """

    def __init__(self, **splits: Any) -> None:
        """
        Args:
            splits: 'train', and 'validation' and 'test' where they are given: sequences of `Sample` or of mappings, such
                as a `datasets.Dataset`. For a split that is not given the training data stands in.

        Raises:
            UserError: a split is not a sequence of samples or of mappings, or is empty.
        """
        self._splits = {name: data for name, data in splits.items() if data is not None}
        for name, data in self._splits.items():
            if (
                not hasattr(data, "__len__")
                or not hasattr(data, "__getitem__")
                or isinstance(data, str | Mapping)
            ):
                raise UserError(
                    f"'{name}' must be a data set or a list (it is a {type(data).__name__}); a stream can be made one "
                    "with list(...)."
                )
            if hasattr(data, "columns") and hasattr(data, "to_dict"):
                raise UserError(f"'{name}' is a table of pandas: give {name}.to_dict('records').")
            if len(data) and not isinstance(data[0], Sample | Mapping):
                raise UserError(
                    f"'{name}' must hold dictionaries such as {{'prompt': ...}} (its first entry is {data[0]!r})."
                )

    def load(self, split: str) -> Sequence[Sample]:
        """The samples of a split, in their order.

        Raises:
            UserError: there is no such split, or a row does not hold what it should; it names the row.
        """
        check_split(split, "in memory")
        data = self._splits.get(split, self._splits["train"])
        if not len(data) or isinstance(data[0], Sample):
            return list(data)
        samples = Samples(_Rows(data, split), _reader(data[0])._sample)
        for _ in samples:
            pass
        return samples


def _reader(row: Row) -> DataTask:
    """What reads rows with these columns."""
    reference = next((name for name in _REFERENCES if name in row), None)
    rejected = "rejected" if reference == "chosen" and "rejected" in row else None
    return DataTask(train=Path("memory"), reference_field=reference, rejected_field=rejected)


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
