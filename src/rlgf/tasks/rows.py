"""Rows of data sets that need not fit into memory."""

from __future__ import annotations

import bisect
import gzip
import json
import shutil
import tempfile
import weakref
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, overload, runtime_checkable

from rlgf.errors import UserError
from rlgf.types import Sample

Row = dict[str, Any]


@runtime_checkable
class Rows(Protocol):
    """Rows by number, and what a message calls each."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Row: ...

    def place(self, number: int) -> str: ...


def file_rows(files: Sequence[Path]) -> Rows:
    """Rows of CSV or Parquet files, or of JSON lines, which may be packed with gzip.

    Raises:
        UserError: a file is not there, is no such file, or is empty.
    """
    kinds = {file.suffix if file.suffix in (".csv", ".parquet") else ".jsonl" for file in files}
    if len(kinds) > 1:
        raise UserError(f"the files of one split must be of one kind: {', '.join(map(str, files))}.")
    (kind,) = kinds
    if kind == ".jsonl":
        return JsonLines(files)
    for file in files:
        if not file.is_file():
            raise UserError(f"{file} cannot be read: there is no such file.")
    return table_rows(kind[1:], {"data_files": {"train": [str(file) for file in files]}, "split": "train"})


def table_rows(source: str, options: dict[str, Any]) -> TableRows:
    """Rows of anything that `datasets` loads, mapped from the disk rather than read into memory.

    Raises:
        UserError: it cannot be loaded.
    """
    import datasets

    try:
        return TableRows(datasets.load_dataset(source, **options), source)
    except Exception as error:  # the library and the readers below it raise many kinds
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise UserError(f"the data {source} {options} cannot be loaded: {reason}.") from error


class TableRows:
    """Rows of a `datasets.Dataset`."""

    def __init__(self, table: Any, name: str) -> None:
        self._table = table
        self._name = name

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, number: int) -> Row:
        return dict(self._table[number])

    def place(self, number: int) -> str:
        return f"{self._name}, row {number + 1}"


class JsonLines:
    """Objects of JSON-lines files; only where each line begins is held in memory, 8 bytes a line.

    A packed file is unpacked once into a temporary one: to reach a line in the middle of it, all that
    stands before would have to be unpacked each time.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        """
        Raises:
            UserError: a file is not there or has no lines.
        """
        self._files = list(files)
        self._opened: list[IO[bytes]] = []
        self._begins = array("Q")
        self._ends: list[int] = []
        self._blanks: list[list[int]] = []
        """For each file, before which of its rows it has empty lines: they count as lines, not as rows."""
        for file in self._files:
            before = len(self._begins)
            self._scan(file)
            if len(self._begins) == before:
                raise UserError(f"{file} is empty: it needs at least one line with a JSON object.")
            self._ends.append(len(self._begins))

    def __len__(self) -> int:
        return len(self._begins)

    def __getitem__(self, number: int) -> Row:
        """
        Raises:
            UserError: the line is not in UTF-8, no JSON, or no object.
        """
        lines = self._opened[bisect.bisect_right(self._ends, number)]
        lines.seek(self._begins[number])
        line = lines.readline()
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise UserError(f"{self.place(number)} is not in UTF-8: {error}.") from error
        except json.JSONDecodeError as error:
            raise UserError(f"{self.place(number)} is not valid JSON: {error}.") from error
        if not isinstance(row, dict):
            raise UserError(f'{self.place(number)} must hold a JSON object such as {{"prompt": ...}}.')
        return row

    def place(self, number: int) -> str:
        file = bisect.bisect_right(self._ends, number)
        row = number - (self._ends[file - 1] if file else 0)
        return f"{self._files[file]}, line {row + 1 + bisect.bisect_right(self._blanks[file], row)}"

    def _scan(self, file: Path) -> None:
        try:
            lines = _seekable(file)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{file} cannot be read as a JSON-lines file: {error}.") from error
        weakref.finalize(self, lines.close)
        self._opened.append(lines)
        begin, first, blanks = 0, len(self._begins), []
        for line in lines:
            if line.strip():
                self._begins.append(begin)
            else:
                blanks.append(len(self._begins) - first)
            begin += len(line)
        self._blanks.append(blanks)


def _seekable(file: Path) -> IO[bytes]:
    if file.suffix != ".gz":
        return file.open("rb")
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115  # the rows keep it open
    try:
        with gzip.open(file) as packed:
            shutil.copyfileobj(packed, unpacked)
        unpacked.seek(0)
    except BaseException:
        unpacked.close()
        raise
    return unpacked


class Samples(Sequence[Sample]):
    """Samples that are made from their rows when they are asked for."""

    def __init__(self, rows: Rows, make: Callable[[Row, str], Sample]) -> None:
        self._rows = rows
        self._make = make

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        """
        Raises:
            UserError: a row is not what the task's options say.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        number = index % len(self)
        return self._make(self._rows[number], self._rows.place(number))

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))
