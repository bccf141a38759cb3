"""Requests that are asked side by side while others go on, and what came of each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

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
    """Threads that find answers, in the order in which they are asked for. Safe for threads."""

    def __init__(self, number: int, find: Callable[[Request], Found]) -> None:
        """
        Args:
            find: gives the answer to one request; what it raises is that request's outcome.
        """
        self.pool = ThreadPoolExecutor(number, thread_name_prefix="guide")
        self._number, self._find = number, find
        self._arrived = threading.Condition()

    def start(self, requests: Sequence[Request]) -> list[UnderWay]:
        """Begin with some requests; returns at once."""
        added = list(map(UnderWay, requests))
        # As many jobs as can run, each of which takes the next request: handing over thousands of requests costs no more.
        queue = iter(added)
        for _ in range(min(self._number, len(added))):
            self.pool.submit(self._work, queue)
        return added

    def outcome(self, under_way: UnderWay) -> Found | BaseException:
        """Wait for what comes of a request."""
        with self._arrived:
            self._arrived.wait_for(lambda: under_way.outcome is not None)
        assert under_way.outcome is not None
        return under_way.outcome

    def _work(self, queue: Iterator[UnderWay]) -> None:
        for under_way in queue:
            try:
                outcome: Found | BaseException = self._find(under_way.request)
            except BaseException as error:  # the one who waits for it raises it
                outcome = error
            with self._arrived:
                under_way.outcome = outcome
                self._arrived.notify_all()
