"""Signals that ask a run to end: Ctrl-C, and what a scheduler sends before it takes a machine away."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Collection
from types import FrameType, TracebackType
from typing import Any

_POLITE = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


class Stopping:
    """Turns signals into a wish that the loop reads between updates, while the block runs.

    Where one process is all there is, a second Ctrl-C raises `KeyboardInterrupt` at once. Of several
    processes none may leave the others in the middle of an exchange; their launcher, which passes Ctrl-C on, sees to
    an end.
    """

    def __init__(self, note: Callable[[str], None], *, alone: bool, hurry: Callable[[], None]) -> None:
        """``hurry`` is called in a thread of its own when a signal comes that may not wait."""
        self.asked = 0
        """The number of the first signal that came; 0 as long as there was none."""
        self._note = note
        self._alone = alone
        self._hurry = hurry
        self._before: dict[int, Any] = {}

    @property
    def hurried(self) -> bool:
        """Whether a signal came that may not wait until the update is finished."""
        return bool(self.asked) and self._hurries(self.asked)

    def _hurries(self, number: int) -> bool:
        # A launcher kills its processes a little after a Ctrl-C too: `torchrun` after 30 s.
        return number != signal.SIGINT or not self._alone

    def __enter__(self) -> Stopping:
        for number in (signal.SIGINT, *_POLITE):
            before = signal.getsignal(number)
            # `nohup` has SIGHUP ignored on purpose; a shell's background jobs start with SIGINT ignored.
            if number == getattr(signal, "SIGHUP", None) and before is signal.SIG_IGN:
                continue
            try:
                signal.signal(number, self._ask)
            except ValueError:  # signals belong to the main thread
                return self
            self._before[number] = before
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Launchers send the polite ones to all as soon as one process has died: who is left saves first.
        self.restore(_POLITE if error is not None else ())

    def restore(self, ignored: Collection[int] = ()) -> None:
        """Give the signals back to who had them; those ``ignored`` stay without an effect until the next call."""
        for number in ignored:
            if number in self._before:
                signal.signal(number, signal.SIG_IGN)
        for number in self._before.keys() - ignored:
            before = self._before.pop(number)
            # None stands for a handler that was not set from Python, and cannot be set again.
            signal.signal(number, signal.SIG_DFL if before is None else before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        again = ""
        if number == signal.SIGINT and self._alone:
            # Not the handler of before, which may ignore the signal.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            again = "; press Ctrl-C again to stop at once, without this update"
        if not self.asked or again:
            self._note(f"Stopping after this update{again}.")
        self.asked = self.asked or number
        if self._hurries(number):
            # Not here: the code that the signal interrupted may hold a lock.
            threading.Thread(target=self._hurry, daemon=True).start()


def stopped(number: int) -> BaseException:
    """What ends a program that a signal asked to end."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
