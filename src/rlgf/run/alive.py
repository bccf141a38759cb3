"""Whether a run goes on: it holds a lock on a file of its folder, which ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

_HELD = "config.yaml"


class Hold:
    """The lock of a run's folder, until it is let go or nobody has it any more.

    Where the disk has no locks, nothing is held, and who watches takes the run for ended.
    """

    def __init__(self, folder: Path) -> None:
        # A bare descriptor: a file object warns where a run that failed leaves it to be collected.
        self._descriptor = os.open(folder / _HELD, os.O_RDONLY)
        with suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def let_go(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self.let_go()


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
