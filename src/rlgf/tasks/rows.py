"""Rows of data sets that need not fit into memory."""

from __future__ import annotations

import bisect
import codecs
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rlgf.errors import UserError, one_line
from rlgf.tasks.base import LazySamples
from rlgf.tasks.csvfiles import CsvFile
from rlgf.tasks.jsonfiles import JsonArray, JsonLines
from rlgf.tasks.textfiles import opened, require_there
from rlgf.types import Sample

Row = dict[str, Any]


@runtime_checkable
class Rows(Protocol):
    """Rows by number, and what a message calls each."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Row: ...

    def place(self, number: int) -> str: ...


def placed(rows: Rows) -> Iterator[tuple[Row, str]]:
    """Each row, and what a message calls it."""
    return ((rows[number], rows.place(number)) for number in range(len(rows)))


_CSV = {".csv": ",", ".tsv": "\t"}
_PARQUET = (".parquet", ".pq")
_OFFICE = (".xlsx", ".xls", ".ods")


def file_rows(files: Sequence[Path], encoding: str = "utf-8") -> Rows:
    """Rows of CSV, TSV or Parquet files, of JSON arrays, or of JSON lines; the name's end says which.

    Args:
        encoding: of text files.

    Raises:
        UserError: a file is not there, is not such a file, is not in the encoding, or has no rows.
    """
    kinds = {_kind(file) for file in files}
    if len(kinds) > 1:
        raise UserError(f"the files of one split must be of one kind: {', '.join(map(str, files))}.")
    (kind,) = kinds
    if kind in _OFFICE:
        raise UserError(f"{files[0]} is a spreadsheet: save it as CSV.")
    if kind in _CSV:
        return Chained([CsvFile(file, _CSV[kind], encoding) for file in files])
    if kind in _PARQUET:
        return Chained([_parquet_rows(file) for file in files])
    arrays = [kind == ".json" and _begins_with_bracket(file, encoding) for file in files]
    if any(arrays) and not all(arrays):
        raise UserError(f"the files of one split must be of one kind: {', '.join(map(str, files))}.")
    return Chained([(JsonArray if all(arrays) else JsonLines)(file, encoding) for file in files])


def _kind(file: Path) -> str:
    """The end of a file's name that says what it is, in lower case."""
    name = file.name.lower().removesuffix(".gz")
    kind = Path(name).suffix
    return kind if kind in (*_CSV, *_PARQUET, *_OFFICE, ".json") else ".jsonl"


def _begins_with_bracket(file: Path, encoding: str) -> bool:
    with opened(file, encoding) as content:
        return content.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"["


def _parquet_rows(file: Path) -> TableRows:
    """
    Raises:
        UserError: the file is not there, is damaged, or has no rows.
    """
    import pyarrow.parquet

    require_there(file)
    try:
        rows = pyarrow.parquet.read_metadata(file).num_rows
    except (OSError, ValueError) as error:  # pyarrow's own are of these kinds
        raise UserError(f"{file} cannot be read as a Parquet file: {_reason(error)}.") from error
    if not rows:
        raise UserError(f"{file} has no rows.")
    return table_rows("parquet", {"data_files": {"train": [str(file)]}, "split": "train"}, str(file))


def table_rows(source: str, options: dict[str, Any], name: str | None = None) -> TableRows:
    """Rows of anything that `datasets` loads, mapped from the disk rather than read into memory.

    Args:
        name: what messages call it; default: ``source``.

    Raises:
        UserError: it cannot be loaded.
    """
    import datasets

    if Path(source).is_file():
        raise UserError(
            f"'data' names the file {source}: give it as 'train', with files for 'validation' and 'test'."
        )
    name = name or source
    if Path(source, "state.json").is_file():
        # A single `Dataset` as its `save_to_disk` leaves it, which `load_dataset` does not take by the folder's name.
        if options.get("name") is not None:
            raise UserError(
                f"'subset' names '{options['name']}', but {name} is one saved data set without subsets: leave it out."
            )
        files = sorted(map(str, Path(source).glob("*.arrow")))
        source, options = "arrow", {**options, "data_files": {"train": files}}
    try:
        return TableRows(datasets.load_dataset(source, **options), name)
    except Exception as error:  # the library and the readers below it raise many kinds
        reason = _reason(error)
        named = [
            f"{what} '{options[key]}'"
            for key, what in (("name", "subset"), ("split", "split"))
            if options.get(key)
        ]
        what = name if "data_files" in options else ", ".join([f"the data set {name}", *named])
        if reason.startswith(("Config name is missing", "BuilderConfig")):
            reason += "; say which one by the option 'subset'"
        if reason.startswith("Unknown split"):
            reason += "; say which one, or which part of one, by the option 'splits', such as {validation: 'train[:5%]'}"
        raise UserError(f"{what} cannot be loaded: {reason}.") from error


def _reason(error: BaseException) -> str:
    """The first cause, in one line: what stands around it says only that something failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error, 300) or type(error).__name__


class Chained:
    """The rows of several sources, one after another."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self._parts = parts
        self._ends = list(itertools.accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, number: int) -> Row:
        part, row = self._within(number)
        return part[row]

    def place(self, number: int) -> str:
        part, row = self._within(number)
        return part.place(row)

    def _within(self, number: int) -> tuple[Rows, int]:
        part = bisect.bisect_right(self._ends, number)
        return self._parts[part], number - (self._ends[part - 1] if part else 0)


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


class Samples(LazySamples):
    """Samples that are made from rows."""

    def __init__(self, rows: Rows, make: Callable[[Row, str], Sample]) -> None:
        self._rows = rows
        self._make = make

    def __len__(self) -> int:
        return len(self._rows)

    def sample(self, number: int) -> Sample:
        """
        Raises:
            UserError: a row is not what the task's options say.
        """
        return self._make(self._rows[number], self.place(number))

    def place(self, number: int) -> str:
        return self._rows.place(number)
