"""Text files that are read by place: packed ones too, and the faults of one."""

from __future__ import annotations

import gzip
import re
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import IO

from rlgf.errors import UserError

_PACKED = (".bz2", ".xz", ".zst", ".zip", ".7z", ".tar")
_GZIP = b"\x1f\x8b"


def require_there(file: Path) -> None:
    """
    Raises:
        UserError: it is not a file.
    """
    if file.is_file():
        return
    # Of the slashes of an address that became a path one is left; a single letter is a drive.
    if re.match(r"\w{2,}:/", str(file)):
        address = str(file).replace(":/", "://", 1)
        raise UserError(
            f"{address} is an address, and files are read: download it, or name a data set of the hub as 'data'."
        )
    what = "it is a folder, so name a file in it" if file.is_dir() else "there is no such file"
    raise UserError(f"{file} cannot be read: {what}.")


def opened(file: Path) -> IO[bytes]:
    """A text file, which can be read from any place.

    A file that is packed with gzip is unpacked once into a temporary one: to reach a line in its middle, all that
    stands before would have to be unpacked each time.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    require_there(file)
    if file.suffix.lower() in _PACKED:
        raise UserError(f"{file} is packed: unpack it, or pack it with gzip.")
    try:
        return _unpacked(file)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} cannot be read: {error}.") from error


def decoded(line: bytes, place: str) -> str:
    """A line's text.

    Raises:
        UserError: it is not in UTF-8, or holds a NUL byte; names the byte.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{place} is not in UTF-8: byte {error.start + 1} of the line is 0x{line[error.start]:02x}. Save it as "
            "UTF-8, as `iconv -f CP1252 -t UTF-8` does of a file from Windows."
        ) from error
    if "\0" in text:
        raise UserError(f"{place} holds a NUL byte: the file is damaged, or not in UTF-8.")
    return text


def _unpacked(file: Path) -> IO[bytes]:
    bytes_read = file.open("rb")
    packed = bytes_read.read(2) == _GZIP
    bytes_read.seek(0)
    if not packed:
        return bytes_read
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115  # the rows keep it open
    try:
        with bytes_read, gzip.open(bytes_read) as content:
            shutil.copyfileobj(content, unpacked)
        unpacked.seek(0)
    except BaseException:
        unpacked.close()
        raise
    return unpacked
