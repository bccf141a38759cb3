"""Whether a run goes on: it holds a lock on a file of its folder, which ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from rlgf.errors import UserError

_HELD = "config.yaml"
_LOOKS = 5
"""How often a lock is asked for: who watches a run has it for a moment."""


class FolderLock:
    """The lock of a run's folder, which one run has at a time, until it is let go or nobody has it any more.

    Where the disk has no locks, nothing is held, and who watches takes the run for ended.
    """

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            UserError: another run has it, or the folder cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # A bare descriptor: a file object warns where a run that failed leaves it to be collected.
            self._descriptor = os.open(folder / _HELD, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(
                f"the output folder {folder} cannot be written: {error.strerror}; set another 'output'."
            ) from error
        for _ in range(_LOOKS):
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(0.1)
            except OSError:
                return
        self.release()  # whoever keeps the error keeps this object too
        raise UserError(
            f"a run goes on in {folder}: wait until it has ended, or end it, or set another 'output'."
        )

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self.release()


def goes_on(folder: Path) -> bool:
    """Whether a process of this machine, or of one that shares its disk's locks, runs in the folder."""
    try:
        with (folder / _HELD).open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
