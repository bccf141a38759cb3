"""Text files that are read by place: packed ones, those of other encodings, and the faults of one."""

from __future__ import annotations

import codecs
import gzip
import re
import shutil
import tempfile
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from rlgf.errors import UserError, not_expanded

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_PACKED = (".bz2", ".xz", ".zst", ".zip", ".7z", ".tar")
_GZIP = b"\x1f\x8b"


def known_encoding(name: str) -> str:
    """The name, where Python knows a text encoding by it.

    Raises:
        ValueError: it does not.
    """
    try:
        "".encode(name)
    except LookupError as error:
        raise ValueError("it must be a text encoding such as 'utf-8', 'cp1252' or 'utf-16'") from error
    return name


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
    if file.is_fifo():
        what = "it is a pipe, which can be read only once: save its text as a file first"
    raise UserError(f"{file} cannot be read: {what}{not_expanded(file)}.")


def opened(file: Path, encoding: str = "utf-8") -> IO[bytes]:
    """A text file as UTF-8, which can be read from any place.

    A file that is packed with gzip or not in UTF-8 is written once into a temporary one: to reach a line in its
    middle, all that stands before would have to be unpacked or decoded each time.

    Raises:
        UserError: there is no such file, it is not readable, or it is not in that encoding.
    """
    require_there(file)
    if file.suffix.lower() in _PACKED:
        raise UserError(f"{file} is packed: unpack it, or pack it with gzip.")
    try:
        bytes_read = _unpacked(file)
        if encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig"):
            if bytes_read.read(2) in _UTF_16:
                bytes_read.close()
                raise UserError(
                    f"{file} is in UTF-16: save it as UTF-8, or for the data of a task set the option 'encoding' to 'utf-16'."
                )
            bytes_read.seek(0)
            return bytes_read
        with bytes_read:
            return _as_utf8(bytes_read, file, encoding)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} cannot be read: {error}.") from error


def decoded(line: bytes, place: str) -> str:
    """A line's text.

    Raises:
        UserError: it is not in UTF-8, or holds a NUL byte; names the byte and the option that helps.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{place} is not in UTF-8: byte {error.start + 1} of the line is 0x{line[error.start]:02x}. Save it as "
            "UTF-8, or for the data of a task set the option 'encoding' to the file's, such as 'cp1252'."
        ) from error
    if "\0" in text:
        raise UserError(
            f"{place} holds a NUL byte: the file is damaged, or in another encoding: save it as UTF-8, or for the data of a "
            "task set the option 'encoding'."
        )
    return text


def _unpacked(file: Path) -> IO[bytes]:
    bytes_read = file.open("rb")
    packed = bytes_read.read(2) == _GZIP
    bytes_read.seek(0)
    if not packed:
        return bytes_read
    with ExitStack() as undone:
        unpacked = undone.enter_context(tempfile.TemporaryFile())
        with bytes_read, gzip.open(bytes_read) as content:
            shutil.copyfileobj(content, unpacked)
        unpacked.seek(0)
        undone.pop_all()  # the rows keep it open
    return unpacked


def _as_utf8(bytes_read: IO[bytes], file: Path, encoding: str) -> IO[bytes]:
    with ExitStack() as undone:
        written = undone.enter_context(tempfile.TemporaryFile())
        try:
            decoder = codecs.getincrementaldecoder(encoding)()
            while chunk := bytes_read.read(1 << 20):
                written.write(decoder.decode(chunk).encode())
            written.write(decoder.decode(b"", final=True).encode())
        except UnicodeError as error:
            raise UserError(_not_in(encoding, bytes_read, file)) from error
        written.seek(0)
        undone.pop_all()  # likewise
    return written


def _not_in(encoding: str, bytes_read: IO[bytes], file: Path) -> str:
    """Where a file is not in an encoding. Read whole, since a stream says only how far it had got by then."""
    bytes_read.seek(0)
    content = bytes_read.read()
    place = f"{file}"
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].decode(encoding, errors="replace").count("\n") + 1
        place = f"{file}, line {line}, byte {error.start + 1} of the file (0x{content[error.start]:02x}),"
    except UnicodeError:
        pass
    return f"{place} is not in '{encoding}': set the option 'encoding' to the file's."
