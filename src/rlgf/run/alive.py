"""Whether a run goes on: it holds a lock on a file of its folder, which ends with its process, however that ends."""

from __future__ import annotations

import fcntl
from contextlib import suppress
from pathlib import Path
from typing import IO

_HELD = "config.yaml"


def hold(folder: Path) -> IO[str]:
    """Hold the lock of a run's folder until the file that this returns is closed.

    Where the disk has no locks, nothing is held, and who watches takes the run for ended.
    """
    file = (folder / _HELD).open(encoding="utf-8")
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_SH)
    return file


def goes_on(folder: Path) -> bool:
    """Whether a process of this machine, or of one that shares its disk's locks, runs in the folder."""
    try:
        with (folder / _HELD).open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
