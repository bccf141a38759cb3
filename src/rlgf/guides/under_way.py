"""Threads that ask side by side, what comes of each request, and how long requests were under way."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlgf.errors import UserError
from rlgf.guides.base import Request
from rlgf.guides.reply import Answer


@dataclass(frozen=True)
class Found:
    answer: Answer
    cached: bool
    """Whether it was there already."""


@dataclass(slots=True)
class UnderWay:
    """Small, since there may be tens of thousands."""

    request: Request
    outcome: Found | BaseException | None = None
    set_aside: bool = True
    """Whether the most that it may cost is set aside until it is answered."""


class Workers:
    """Threads that find answers, in the order in which they are asked for. Safe for threads.

    Python does not wait for them at its end, since a server may keep one for as long as it likes.
    """

    def __init__(self, number: int, find: Callable[[Request], Found]) -> None:
        """``find`` gives the answer to one request; what it raises is that request's outcome."""
        self._number, self._find = number, find
        self._threads: list[threading.Thread] = []
        self._todo: queue.SimpleQueue[UnderWay | None] = queue.SimpleQueue()
        self._arrived = threading.Condition()
        self._ended = False

    def start(self, requests: Sequence[Request]) -> list[UnderWay]:
        """Begin with some requests; returns at once."""
        added = list(map(UnderWay, requests))
        for one in added:
            self._todo.put(one)
        with self._arrived:
            for _ in range(min(self._number - len(self._threads), len(added))):
                self._threads.append(threading.Thread(target=self._work, name="guide", daemon=True))
                self._threads[-1].start()
        return added

    def outcome(self, under_way: UnderWay) -> Found | BaseException:
        """Wait for what comes of a request, or for the end."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._ended or under_way.outcome is not None)
        return under_way.outcome or UserError("the guide was closed while it was asked.")

    def end(self, seconds: float) -> None:
        """Tell at once whoever waits, and wait at most so long for the answers under way."""
        with self._arrived:
            self._ended = True
            self._arrived.notify_all()
        until = time.monotonic() + seconds
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0))

    def _work(self) -> None:
        for under_way in iter(self._todo.get, None):
            try:
                outcome: Found | BaseException = self._find(under_way.request)
            except BaseException as error:  # the one who waits for it raises it
                outcome = error
            with self._arrived:
                under_way.outcome = outcome
                self._arrived.notify_all()


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
