"""A guide that knows the solution: a program that begins or finishes it, with as many mistakes as it is told."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import ClassVar, Literal

from pydantic import Field
from transformers import PreTrainedTokenizerBase

from rlgf import seeding
from rlgf.errors import UserError
from rlgf.guides.base import Request
from rlgf.guides.settings import GuideSettings
from rlgf.guides.solving import written_solution
from rlgf.types import Completion


class OracleGuideConfig(GuideSettings):
    """A program that writes the reference of a sample; in a recipe ``guide: oracle`` is short for one without mistakes."""

    mark: ClassVar[str] = "oracle"

    oracle: Literal[True]
    errors: float = Field(default=0.0, ge=0, le=1)
    """The probability of a step to be wrong: a line of the steps, a letter of `spell_backward`, an item of
    `number_sorting`, a word of any other text. What follows a wrong step follows from it."""
    seed: int = 0
    """Another seed makes other mistakes."""

    @property
    def label(self) -> str:
        return f"oracle, errors {self.errors:g}" if self.errors else "oracle"


class OracleGuide:
    """Begins a solution, or finishes one: it makes good what can be made good, and else ends the text.

    Its texts are known before they are asked for (see `RecordedGuide`), and a function of the request:
    the same mistakes in the same place, however requests are batched.
    """

    settings: ClassVar[type[GuideSettings]] = OracleGuideConfig

    @classmethod
    def from_settings(
        cls, settings: GuideSettings, policy_tokenizer: PreTrainedTokenizerBase | None
    ) -> OracleGuide:
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
        purpose = (request.seed, request.prompt, request.written)
        random = Random(seeding.derive(self.config.seed, "oracle", *purpose))
        return written_solution(request.sample, request.written, self.config.errors, random)
