"""Rows of CSV and TSV files. Every cell is the text that stands in the file."""

from __future__ import annotations

import csv
import sys
import weakref
from array import array
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlgf.errors import UserError
from rlgf.tasks.textfiles import decoded, opened


class CsvFile:
    """Rows of a CSV file with a header; only where each row begins is held in memory, 16 bytes a row.

    Cells are texts: no number, date or absent value is read into them, and an empty cell is an empty text.
    Quoting is that of RFC 4180, so a quoted cell may hold line breaks.
    """

    def __init__(self, file: Path, delimiter: str = ",", encoding: str = "utf-8") -> None:
        """
        Raises:
            UserError: the file is not there, not in its encoding, has no header or no rows, or a row of it has not
                as many cells as the header.
        """
        # One cell may be as long as it likes; the library's own limit is 128 KiB, and of the whole process.
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
        self._file, self._delimiter = file, delimiter
        self._opened = opened(file, encoding)
        weakref.finalize(self, self._opened.close)
        self._begins, self._lines = array("Q"), array("Q")
        self._header = self._scan()

    def __len__(self) -> int:
        return len(self._begins)

    def __getitem__(self, number: int) -> dict[str, str]:
        self._opened.seek(self._begins[number])
        cells = next(self._reader(line.decode() for line in iter(self._opened.readline, b"")))
        return dict(zip(self._header, cells, strict=True))

    def place(self, number: int) -> str:
        return f"{self._file}, line {self._lines[number]}"

    def _reader(self, lines: Iterator[str]) -> Any:
        # Strict: a quote that is never closed would swallow the rest of the file.
        return csv.reader(lines, delimiter=self._delimiter, strict=True)

    def _scan(self) -> list[str]:
        file, content = self._file, self._opened
        content.seek(len(BOM_UTF8) if content.read(len(BOM_UTF8)) == BOM_UTF8 else 0)
        numbered = enumerate(iter(content.readline, b""), start=1)
        reader = self._reader(decoded(row, f"{file}, line {number}") for number, row in numbered)
        header: list[str] | None = None
        begin, line = content.tell(), 1
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise UserError(f"{file}, line {line} is not valid CSV: {error}.") from error
            if cells is None:
                break
            if cells and header is None:
                header = self._checked_header(cells, file)
            elif cells:
                self._check_width(cells, header or [], f"{file}, line {line}")
                self._begins.append(begin)
                self._lines.append(line)
            begin, line = content.tell(), reader.line_num + 1
        if header is None:
            raise UserError(f"{file} is empty: it needs a line with the names of the columns, and rows.")
        if not self._begins:
            raise UserError(f"{file} has the names of columns ({', '.join(header)}), and no rows.")
        return header

    def _checked_header(self, names: list[str], file: Path) -> list[str]:
        twice = [name for i, name in enumerate(names) if name in names[:i]]
        if twice:
            raise UserError(f"{file} has two columns called '{twice[0]}': rename one of them.")
        for other in ";\t,|":
            if len(names) == 1 and other in names[0] and other != self._delimiter:
                raise UserError(
                    f"{file} has one column, '{names[0]}': its cells seem to be parted by {other!r}, and those of a "
                    f"{'.tsv' if self._delimiter != ',' else '.csv'} file are by {self._delimiter!r}."
                )
        return names

    def _check_width(self, cells: list[str], header: list[str], place: str) -> None:
        if len(cells) != len(header):
            raise UserError(
                f"{place} has {len(cells)} cells, and the header has {len(header)} ({', '.join(header)}): quote a cell "
                f"that holds {self._delimiter!r}, a quote or a line break."
            )
