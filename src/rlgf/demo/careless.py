"""Careless solutions: a writer who follows a hint in the prompt, and a task that pairs them with right ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from rlgf import seeding
from rlgf.guides.base import Request
from rlgf.guides.oracle import altered, written_solution
from rlgf.tasks.reasoning import ReasoningTask
from rlgf.types import Completion, Sample


class CarelessReader:
    """Reads ``hint|word>``: writes the hint's letters as they stand, and the others with slips.

    A start that is cloned on its texts has learned to read hints, and no solution.
    """

    def __init__(self, errors: float = 0.75, misread: float = 0.1) -> None:
        """
        Args:
            errors: the probability of a letter beyond the hint to be wrong.
            misread: that of a letter of the hint, so that the letter before does not tell which of them comes next.
        """
        self.errors, self.misread = errors, misread

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        """See `rlgf.guides.base.Guide.write`."""
        return [Completion(self._text(request), finished=True) for request in requests]

    def _text(self, request: Request) -> str:
        assert request.sample is not None, "tasks hand it on"
        hint, bar, _ = request.prompt.partition("|")
        told = len(hint) if bar else 0
        random = Random(seeding.derive(request.seed, "careless", request.prompt, request.written))
        places = iter(range(len(request.written), len(request.sample.references[0])))
        return written_solution(
            request.sample,
            request.written,
            random,
            lambda _: random.random() < (self.misread if next(places) < told else self.errors),
        )


class CarelessPairs(ReasoningTask):
    """Problems as `reasoning` has them, each with a right solution and a careless one: a preference pair."""

    def __init__(self, dataset: str, errors: float = 0.1, **options: Any) -> None:
        """
        Args:
            errors: the probability of a step of the careless solution to be wrong; one is always.
            options: see `ReasoningTask`.
        """
        super().__init__(dataset, **options)
        self.errors = errors

    def _sample(self, entry: Mapping[str, Any]) -> Sample:
        sample = super()._sample(entry)
        random = Random(seeding.derive(0, "careless", sample.prompt))
        careless = written_solution(sample, "", random, lambda _: random.random() < self.errors)
        if careless == sample.references[0]:
            careless = altered(careless, random)
        return replace(sample, rejected=careless)
