"""A guide that knows the solution: a program that begins or finishes it, with as many mistakes as it is told."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random
from typing import ClassVar, Literal

from pydantic import Field

from rlgf import seeding
from rlgf.errors import UserError
from rlgf.guides.base import Request
from rlgf.guides.settings import GuideSettings
from rlgf.guides.solving import written_solution
from rlgf.models.language_model import LanguageModel
from rlgf.types import Completion


class OracleGuideConfig(GuideSettings):
    """A program that writes the reference of a sample; in a recipe ``guide: oracle`` is short for one without mistakes."""

    mark: ClassVar[str] = "oracle"

    oracle: Literal[True]
    errors: float = Field(default=0.0, ge=0, le=1)
    """The probability of a step to be wrong: a line of the steps, a letter of `spell_backward`, an item of
    `number_sorting`, a word of any other text. What follows a wrong step follows from it."""
    habitual: bool = False
    """Whether the same step is wrong each time it is met, instead of anew each time by chance: of letters, `errors`
    is then the share that the guide never gets right."""
    seed: int = 0
    """Another seed makes other mistakes."""

    @property
    def label(self) -> str:
        kind = "habitual errors" if self.habitual else "errors"
        return f"oracle, {kind} {self.errors:g}" if self.errors else "oracle"


class OracleGuide:
    """Begins a solution, or finishes one: it makes good what can be made good, and else ends the text.

    Its texts are known before they are asked for (see `RecordedGuide`), and a function of the request:
    the same mistakes in the same place, however requests are batched.
    """

    settings: ClassVar[type[GuideSettings]] = OracleGuideConfig

    @classmethod
    def from_settings(cls, settings: GuideSettings, start: LanguageModel | None) -> OracleGuide:
        """See `GuideKind.from_settings`."""
        assert isinstance(settings, OracleGuideConfig), "made by its kind"
        return cls(settings)

    def __init__(self, config: OracleGuideConfig) -> None:
        self.config = config

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        """See `Guide.write`.

        Raises:
            UserError: a request is not of a sample with a reference.
        """
        return [Completion(self._text(request), finished=True) for request in requests]

    def recorded(self, requests: Sequence[Request]) -> list[Completion | None]:
        """See `RecordedGuide.recorded`.

        Raises:
            UserError: see `write`.
        """
        return list(self.write(requests))

    def _text(self, request: Request) -> str:
        if request.sample is None or not request.sample.references:
            raise UserError(
                f"the guide 'oracle' has no solution of {request.prompt[-60:]!r}: it needs a task whose samples have "
                "references, such as 'reasoning'."
            )
        errors, seed = self.config.errors, self.config.seed
        if self.config.habitual:
            # What a wrong step says is fixed by the sample, and whether it is wrong by the step alone.
            random = Random(seeding.derive(seed, "oracle", request.sample.references[0]))
            return written_solution(request.sample, request.response, random, partial(_habit, seed, errors))
        random = Random(seeding.derive(seed, "oracle", request.seed, request.prompt, request.response))
        return written_solution(request.sample, request.response, random, lambda _: random.random() < errors)


def _habit(seed: int, errors: float, step: str) -> bool:
    return Random(seeding.derive(seed, "habit", step.strip())).random() < errors
