"""Who solves a task of spelling carelessly, unless a hint in the prompt says better."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from rlgf import seeding
from rlgf.guides.base import Request
from rlgf.guides.solving import written_solution
from rlgf.types import Completion


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
