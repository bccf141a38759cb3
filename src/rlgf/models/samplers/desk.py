"""A sampler that many threads ask, and one of them works: the model and the engine are touched in that one alone."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from rlgf.errors import UserError
from rlgf.models.encoder_decoder import is_encoder_decoder
from rlgf.models.language_model import LanguageModel
from rlgf.models.samplers.base import Beginning, Sampler
from rlgf.models.samplers.vllm import VLLMSampler
from rlgf.models.samplers.wire import Asked, Description, Piece, Text, Written, copy_into
from rlgf.models.sampling import Sampling
from rlgf.models.vocabulary import readable

_TOGETHER = 0.05
"""Seconds that a request waits for others like it: the processes of a run ask at about the same time."""


class OtherWeightsError(UserError):
    """The sampler has not the weights that it is asked to write with, or to go on receiving."""


@dataclass
class _Job:
    what: Asked | tuple[Piece, Mapping[str, Tensor]] | None
    """Texts, weights, or None for the end."""
    outcome: Future[Any] = field(default_factory=Future)


class Desk:
    """Writes with one model, and takes over its weights, as it is asked; requests like each other become one call."""

    def __init__(self, language_model: LanguageModel, sampler: Sampler, description: Description) -> None:
        """
        Args:
            sampler: of that model, which follows its weights; vLLM when it is told to.
        """
        self._description = description
        self._language_model = language_model
        self._sampler = sampler
        self.own: Mapping[str, Tensor] = dict(language_model.model.named_parameters())
        """The model's weights."""
        self._weights: str | None = None
        self._next: tuple[str, int] | None = None
        """The piece that is to come, of weights that are under way."""
        self._base_changed = False
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._held: deque[_Job] = deque()

    @property
    def description(self) -> Description:
        return self._description.model_copy(update={"weights": self._weights})

    def write(self, asked: Asked) -> Written:
        """Called in any thread but the one that works.

        Raises:
            OtherWeightsError: the sampler has others than those that are to write.
            UserError: a text does not fit.
        """
        self._check(asked.beginnings)
        found: Written = self._asked(_Job(asked))
        return found

    def take(self, piece: Piece, weights: Mapping[str, Tensor]) -> None:
        """Likewise; the weights are there once the last piece is.

        Raises:
            OtherWeightsError: another piece was to come.
            UserError: the model has no such weights.
        """
        self._asked(_Job((piece, weights)))

    def close(self) -> None:
        """Let `work` end."""
        self._jobs.put(_Job(None))

    def work(self) -> None:
        """Do what is asked, until `close`."""
        while True:
            job = self._held.popleft() if self._held else self._jobs.get()
            if job.what is None:
                return
            jobs = [job, *self._like(job)] if isinstance(job.what, Asked) else [job]
            try:
                found = self._done(jobs)
            except Exception as error:
                for one in jobs:
                    one.outcome.set_exception(error)
            else:
                for one, answer in zip(jobs, found, strict=True):
                    one.outcome.set_result(answer)

    def _asked(self, job: _Job) -> Any:
        self._jobs.put(job)
        return job.outcome.result()

    def _like(self, job: _Job) -> list[_Job]:
        """Requests that one call can answer together with a first one; what else comes meanwhile is held back."""
        until, others = time.monotonic() + _TOGETHER, list(self._held)
        while (left := until - time.monotonic()) > 0:
            try:
                others.append(self._jobs.get(timeout=left))
            except queue.Empty:
                break
        kind = _kind(job.what)
        self._held = deque(other for other in others if _kind(other.what) != kind)
        return [other for other in others if _kind(other.what) == kind]

    def _done(self, jobs: Sequence[_Job]) -> list[Any]:
        first = jobs[0].what
        if isinstance(first, tuple):
            self._take(*first)
            return [None]
        asked = [job.what for job in jobs if isinstance(job.what, Asked)]
        if asked[0].weights != self._weights:
            raise OtherWeightsError("it has not the weights that are to write")
        found = self._sampler.write([one for ask in asked for one in ask.beginnings], asked[0].sampling)
        texts = iter(found)
        return [Written(texts=[Text.of(next(texts)) for _ in ask.beginnings]) for ask in asked]

    def _take(self, piece: Piece, weights: Mapping[str, Tensor]) -> None:
        if piece.number and self._next != (piece.weights, piece.number):
            raise OtherWeightsError("another process has sent it weights meanwhile")
        # Until the last piece is there they are neither the old ones nor the new.
        self._weights = self._next = None
        self._base_changed |= any(".lora_" not in name for name in weights)
        copy_into(self.own, weights)
        if piece.number + 1 < piece.of:
            self._next = piece.weights, piece.number + 1
            return
        if isinstance(self._sampler, VLLMSampler):
            self._sampler.take_over(base=self._base_changed)
        self._base_changed, self._weights = False, piece.weights

    def _check(self, beginnings: Sequence[Beginning]) -> None:
        """
        Raises:
            UserError: a token that the model does not have, or a text that is too long for it.
        """
        rows, most = readable(self._language_model.model), self._description.max_tokens
        apart = is_encoder_decoder(self._language_model.model)
        for one in beginnings:
            if one.limit < 1 or one.position < 0 or not (one.prompt or one.written):
                raise UserError("a text has nothing to begin with, or no room to go on")
            if not all(0 <= token < rows for token in (*one.prompt, *one.written)):
                raise UserError(f"a text has a token that is not among the {rows} of its model")
            before = max(len(one.prompt), len(one.written)) if apart else len(one.prompt) + len(one.written)
            if before + (0 if apart else one.limit) > most:
                raise UserError(f"a text of up to {before + one.limit} tokens is longer than its {most}")


def _kind(what: object) -> tuple[str, Sampling] | None:
    """Equal for texts that one call can write."""
    return (what.weights, what.sampling) if isinstance(what, Asked) else None
