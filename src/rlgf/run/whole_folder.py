"""Folders and files that are there whole or not at all: written aside, flushed and renamed."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from rlgf.errors import UserError


@contextmanager
def full_disk_named(folder: Path, what: str) -> Iterator[None]:
    """Turn a write that fails for want of space into one sentence.

    Raises:
        UserError: the disk is full.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # Libraries hide the cause of a failed write behind errors of their own.
        full = any(said in str(error) for said in ("No space left", "Disk quota exceeded"))
        if full or shutil.disk_usage(folder.parent).free < 2**20:
            raise UserError(
                f"the disk is full: {what} could not be written to {folder}; earlier checkpoints are "
                "untouched: free some space and go on."
            ) from error
        raise


@contextmanager
def removed_on_failure(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def _digest(path: Path) -> str:
    # In pieces: a file may be larger than the memory that is left.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(folder: Path) -> None:
    """Make sure the data and the names of the files are on the disk before the rename can be."""
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def write_whole(path: Path, text: str) -> None:
    """Write a file in one step: whoever reads it finds all of the text, or what was there before."""
    aside = path.with_suffix(".writing")
    try:
        aside.write_text(text)
        _sync(aside)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def put_in_place(aside: Path, final: Path) -> None:
    """Rename a whole checkpoint to its name, and make sure that the name is on the disk."""
    replaced = final.with_name(aside.name.replace("writing", "replaced"))
    shutil.rmtree(replaced, ignore_errors=True)
    with suppress(FileNotFoundError):
        final.rename(replaced)
    try:
        aside.rename(final)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        # Another process whose main one is gone was faster, with the same checkpoint.
        shutil.rmtree(aside)
    _sync(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def clear_left(root: Path) -> None:
    """Remove what a process that was killed left behind, where no process of the run goes on.

    What bears the number of a process may still be written, by one whose main one is gone: it stays until there is a
    checkpoint as new as it would be.
    """
    newest = max((int(path.name) for path in root.glob("*") if path.name.isdecimal()), default=0)
    for path in root.glob(".*"):
        left = re.fullmatch(r"\.(?:writing|replaced)-(\d+)(-\d+)?", path.name)
        if left is not None and (left[2] is None or int(left[1]) <= newest):
            shutil.rmtree(path, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
