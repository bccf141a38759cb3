"""Whether results can be written where they are to go, said before the work that makes them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from rlgf.errors import UserError

_OF_MODELS = ("config.json", "adapter_config.json", "reward.json")


def require_folder(folder: Path, field: str) -> None:
    """
    Raises:
        UserError: it is not a folder that can be made or written into.
    """
    reason = _unwritable(folder)
    if reason is not None:
        raise UserError(f"the output folder {folder} cannot be written: {reason}; set another {field}.")


def require_file(file: Path, field: str, read: Iterable[Path | None] = ()) -> None:
    """
    Args:
        read: files that the command reads, if any, and that it must leave as they are.

    Raises:
        UserError: it is not a file that can be made or written, or it is one of those that are read.
    """
    try:
        reason = "Is a directory" if file.is_dir() else _unwritable(file.parent)
        if reason is None and file.exists() and not os.access(file, os.W_OK):
            reason = "Permission denied"
        itself = file.exists() and any(
            one is not None and one.exists() and one.samefile(file) for one in read
        )
    except OSError as error:  # a name that is too long
        reason, itself = str(error.strerror), False
    if reason is not None:
        raise UserError(f"{file} cannot be written: {reason}; give another {field}.")
    if itself:
        raise UserError(f"{file} is read, and would be overwritten: give another {field}.")


def require_none(files: Iterable[Path], field: str) -> None:
    """
    Raises:
        UserError: one of the files is there already.
    """
    for file in files:
        if file.exists():
            raise UserError(f"{file} is there already, and nothing is overwritten: set another {field}.")


def require_no_model(folder: Path, field: str) -> None:
    """
    Raises:
        UserError: it is not a folder that can be made or written into, or it holds a model.
    """
    require_folder(folder, field)
    require_none((folder / name for name in _OF_MODELS), field)


def _unwritable(folder: Path) -> str | None:
    """Why a folder cannot be made or written into."""
    try:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not there.is_dir():
            return "Not a directory"
        return None if os.access(there, os.W_OK) else "Permission denied"
    except OSError as error:  # a name that is too long
        return str(error.strerror)
