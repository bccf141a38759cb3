"""Sampling that works ahead: while one update learns, a thread collects the texts of those that come after it."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass, field

from rlgf.config import Config
from rlgf.models.language_model import LanguageModel, Snapshot
from rlgf.rollout.assembly import rescored
from rlgf.rollout.collector import Collector
from rlgf.run.build import Parts
from rlgf.run.plan import Plan
from rlgf.types import Rollout

_PATIENCE = 10.0
"""Seconds that the end of a run waits for the thread, which may stand still for a guide's answer."""


class Ahead:
    """Collects the episodes of each update with the policy as it was k updates before, k being `training.async_steps`.

    Update n, counted from 0, is written by the policy as it was after max(s, n - k) updates, where s is the update at
    which this began: the run's first, or that of the checkpoint which it goes on from. So no text depends on how fast
    anybody is. Then the policy as it is scores the texts, as it does those of a separate engine: the losses compare
    with the policy before the update, and the probabilities that the tokens were drawn with make their importance
    weights.
    """

    def __init__(self, config: Config, parts: Parts) -> None:
        self._config = config
        self._parts = parts
        self._worker: _Worker | None = None

    def collect(self, update: int, planned: Callable[[int], Plan]) -> Rollout:
        """The episodes of the current update, as it is ``planned``; those that are due while it learns are begun.

        Raises:
            Exception: whatever collecting the update raised.
        """
        worker = self._worker
        if worker is None or update not in worker.jobs or worker.jobs[update].plan != planned(update):
            # The first update of all, or one that is not what it was to be.
            self.close()
            self._worker = worker = _Worker(self._parts.policy, self._config.training.async_steps, update)
            self._begin(worker, update, planned)
        job = worker.jobs[update]
        try:
            rollout = job.outcome.result()
        except BaseException:
            if job.outcome.done():
                self.close()
            raise
        if not job.taken:
            self._parts.collector.sampled.update(job.collector.sampled)
            job.taken = True
        worker.jobs = {number: one for number, one in worker.jobs.items() if number >= update}
        self._begin(worker, update, planned)
        return rescored(rollout, self._parts.policy, self._config.rollout)

    def metrics(self, update: int) -> dict[str, float]:
        """For the log: ``staleness``, by how many updates the weights that wrote an update's texts were older than the
        policy, and ``seconds_ahead``, how long that took; empty where nobody worked ahead."""
        job = None if self._worker is None else self._worker.jobs.get(update)
        if job is None or not job.taken:
            return {}
        return {"staleness": float(update - job.written_after), "seconds_ahead": job.seconds}

    def rest(self) -> None:
        """Wait until nothing is being written, so that the guide can be asked from elsewhere."""
        if self._worker is not None:
            futures.wait([job.outcome for job in self._worker.jobs.values()])

    def close(self) -> None:
        """End the thread; what it has yet to write is given up."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def _begin(self, worker: _Worker, update: int, planned: Callable[[int], Plan]) -> None:
        """Hand over what is to be written with the weights of this moment."""
        training = self._config.training
        last = max(update, min(update + training.async_steps, training.updates - 1))
        for number in range(update, last + 1):
            if number not in worker.jobs:
                following = planned(number + 1) if number + 1 < training.updates else None
                worker.add(planned(number), following, self._parts.collector, update)


@dataclass
class _Job:
    """The episodes of one update, to be collected in the thread."""

    plan: Plan
    following: Plan | None
    """What a remote guide can be asked for meanwhile."""
    collector: Collector
    written_after: int
    """How many updates the policy had finished whose weights write."""
    outcome: futures.Future[Rollout] = field(default_factory=futures.Future)
    seconds: float = 0.0
    taken: bool = False
    """Whether the run has got it."""

    def run(self, stopping: threading.Event) -> None:
        started, plan = time.perf_counter(), self.plan
        try:
            _go_on(stopping)
            for one in (plan, self.following):
                if one is not None:
                    self.collector.prefetch(one.samples, one.row, one.update, one.progress)
            rollout = self.collector.collect(
                plan.samples, plan.row, plan.update, plan.progress, index=plan.places
            )
            self.seconds = time.perf_counter() - started
            self.outcome.set_result(rollout)
        except BaseException as error:  # the one who waits for it raises it
            # What comes after it would be paid for in a run that is about to end.
            stopping.set()
            self.outcome.set_exception(error)


class _Worker:
    """The thread, what it has to do, and the weights that it does it with."""

    def __init__(self, policy: LanguageModel, steps: int, update: int) -> None:
        """``steps`` is how many snapshots of the policy there are, ``update`` how many updates it has finished."""
        self.jobs: dict[int, _Job] = {}
        self._snapshots = [Snapshot(policy) for _ in range(steps)]
        self._taken_after = [update] * steps
        stopping = threading.Event()
        for snapshot in self._snapshots:
            # Asked before each token, so that nobody waits until a text is finished.
            snapshot.language_model.model.register_forward_pre_hook(lambda *_: _go_on(stopping))
        self._todo: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # No thread that Python waits for at its end, where it is stopped just before.
        thread = threading.Thread(target=_work, args=(self._todo, stopping), name="ahead", daemon=True)
        self.end = weakref.finalize(self, _end, self._todo, stopping, thread)
        thread.start()

    def add(self, plan: Plan, following: Plan | None, collector: Collector, update: int) -> None:
        """Let an update be written with the weights of this moment.

        Args:
            following: the update after it; None where it is the last one, with which the thread ends.
            update: how many updates are finished. The one that is so many before ``plan`` as there are snapshots has
                been written, so that its snapshot is free; or all began with the same weights.
        """
        place = plan.update % len(self._snapshots)
        snapshot = self._snapshots[place]
        if self._taken_after[place] != update:
            snapshot.update()
            self._taken_after[place] = update
        job = _Job(plan, following, collector.by(snapshot.language_model), update)
        self.jobs[plan.update] = job
        self._todo.put(job)
        if following is None:
            self._todo.put(None)


class _StoppedError(Exception):
    """The thread is to end."""


def _go_on(stopping: threading.Event) -> None:
    if stopping.is_set():
        raise _StoppedError


def _work(todo: queue.SimpleQueue[_Job | None], stopping: threading.Event) -> None:
    for job in iter(todo.get, None):
        job.run(stopping)
        del job  # what it wrote is large


def _end(todo: queue.SimpleQueue[_Job | None], stopping: threading.Event, thread: threading.Thread) -> None:
    stopping.set()
    todo.put(None)
    if thread is not threading.current_thread():
        thread.join(_PATIENCE)
