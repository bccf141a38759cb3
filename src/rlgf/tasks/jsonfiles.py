"""Rows of JSON arrays and of JSON-lines files."""

from __future__ import annotations

import bisect
import json
import re
import warnings
import weakref
from array import array
from pathlib import Path
from typing import Any

from rlgf.errors import UserError
from rlgf.jsontext import whole_characters
from rlgf.tasks.textfiles import decoded, opened


class JsonArray:
    """The objects of a JSON array, which is read whole."""

    def __init__(self, file: Path, encoding: str = "utf-8") -> None:
        """
        Raises:
            UserError: it is not JSON, or an entry is not an object.
        """
        with opened(file, encoding) as content:
            lines = [decoded(line, f"{file}, line {i}") for i, line in enumerate(content, start=1)]
        self._file = file
        self._rows = _parsed("".join(lines).removeprefix("\ufeff"), str(file))
        if not self._rows:
            raise UserError(f"{file} is an empty array: it needs at least one JSON object.")
        for number, row in enumerate(self._rows):
            _check_object(row, self.place(number))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return dict(self._rows[number])

    def place(self, number: int) -> str:
        return f"{self._file}, item {number + 1}"


class JsonLines:
    """The objects of a JSON-lines file; only where each line begins is held in memory, 8 bytes a line.

    Half of a surrogate pair, which is not a character, is read as U+FFFD; a warning counts the lines that have one.
    """

    def __init__(self, file: Path, encoding: str = "utf-8") -> None:
        """
        Raises:
            UserError: the file is not there, not in its encoding, or has no lines.
        """
        self._file, self._opened = file, opened(file, encoding)
        weakref.finalize(self, self._opened.close)
        self._begins = array("Q")
        self._blanks: list[int] = []
        """Before which of its rows it has empty lines: they count as lines, not as rows."""
        self._scan()
        if not self._begins:
            raise UserError(f"{file} is empty: it needs at least one line with a JSON object.")

    def __len__(self) -> int:
        return len(self._begins)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """
        Raises:
            UserError: the line is not in UTF-8, no JSON, or no object.
        """
        self._opened.seek(self._begins[number])
        place = self.place(number)
        row = _parsed(decoded(self._opened.readline(), place).removeprefix("\ufeff"), place, _LINES)
        _check_object(row, place, _LINES if isinstance(row, list) else "")
        return dict(row)

    def place(self, number: int) -> str:
        return f"{self._file}, line {number + 1 + bisect.bisect_right(self._blanks, number)}"

    def _scan(self) -> None:
        begin, halves = 0, []
        for line in self._opened:
            if line.strip():
                if _HALF.search(line):
                    halves.append(len(self._begins))
                self._begins.append(begin)
            else:
                self._blanks.append(len(self._begins))
            begin += len(line)
        halves = [number for number in halves if _has_half(self, number)]
        if halves:
            warnings.warn(
                f"{self.place(halves[0])}: half of a surrogate pair, which is not a character, is read as U+FFFD "
                f"({len(halves)} such lines in this file).",
                stacklevel=2,
            )


_HALF = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
"""What may be half of a surrogate pair; a backslash before it may make it a text about one."""


def _has_half(lines: JsonLines, number: int) -> bool:
    try:
        return "\ufffd" in json.dumps(lines[number], ensure_ascii=False)
    except UserError:
        return False  # said where the line is read


_LINES = (
    "; each object must stand whole on one line, or for the data of a task all of them in an array, [{...}, {...}], in a "
    ".json file"
)


def _parsed(text: str, place: str, torn: str = "") -> Any:
    """A JSON document without halves of surrogate pairs.

    Args:
        torn: what a message ends in where the text ends before the document does.

    Raises:
        UserError: it is not JSON.
    """
    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, place))
    except json.JSONDecodeError as error:
        hint = torn if error.pos >= len(text.rstrip()) else ""
        raise UserError(f"{place} is not valid JSON: {error}{hint}.") from error
    except RecursionError as error:
        raise UserError(f"{place} is not valid JSON that can be read: it is nested too deeply.") from error
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{place} has a value that cannot be read: {error}.") from error
    return _whole(value) if "\\u" in text else value


def _once(pairs: list[tuple[str, Any]], place: str) -> dict[str, Any]:
    """
    Raises:
        UserError: an object names a field twice; a reader would keep the last one in silence.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise UserError(f"{place} has the field '{twice}' twice: each field must have one value.")
    return found


def _whole(value: Any) -> Any:
    """The value with U+FFFD for each half of a surrogate pair in its texts."""
    if isinstance(value, str):
        return whole_characters(value)
    if isinstance(value, dict):
        return {_whole(key): _whole(entry) for key, entry in value.items()}
    return [_whole(entry) for entry in value] if isinstance(value, list) else value


def _check_object(row: Any, place: str, hint: str = "") -> None:
    """
    Args:
        hint: the end of the message.

    Raises:
        UserError: a row is no JSON object.
    """
    if not isinstance(row, dict):
        raise UserError(f'{place} must hold a JSON object such as {{"prompt": ...}}{hint}.')
