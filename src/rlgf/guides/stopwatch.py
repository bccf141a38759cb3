"""Measures for how long at least one of several threads was at work."""

from __future__ import annotations

import threading
import time


class Stopwatch:
    """Runs while at least one thread is inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._since = self._seconds = 0.0

    def __enter__(self) -> None:
        with self._lock:
            self._tick()
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._tick()
            self._inside -= 1

    def take(self) -> float:
        """Seconds since the last call."""
        with self._lock:
            self._tick()
            seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _tick(self) -> None:
        now = time.perf_counter()
        if self._inside:
            self._seconds += now - self._since
        self._since = now
