"""The policy as its own guide: what it was when the run began, a moving average of it, or what it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, field_serializer, field_validator, model_validator
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlgf.guides.local import LocalGuide, LocalSettings
from rlgf.models.language_model import LanguageModel, Snapshot
from rlgf.models.sampling import Sampling


class SelfGuideConfig(LocalSettings):
    """The policy, which reads more than it does when it trains; in a recipe ``guide: self`` is short for its start.

    The start is the model that the KL penalty compares with, and with an adapter the base without it, so it takes no
    memory of its own, and it does not change. ``average`` is a copy of the trained weights that moves with them, ``live`` is
    the policy as it is; both only say how probable texts are.
    """

    mark: ClassVar[str] = "self"

    self: Literal["start", "average", "live"]
    """Which weights."""
    decay: float = Field(default=0.99, gt=0, lt=1, exclude_if=lambda decay: decay == 0.99)
    """How much of an average stays at each update: ``average <- decay average + (1 - decay) policy``."""
    sampling: Sampling = Sampling()

    @field_validator("self", mode="before")
    @classmethod
    def _start(cls, value: Any) -> Any:
        return "start" if value is True else value

    @field_serializer("self")
    def _short(self, value: str) -> str | bool:
        return value == "start" or value

    @model_validator(mode="after")
    def _decay_of_an_average(self) -> SelfGuideConfig:
        if "decay" in self.model_fields_set and self.moment != "average":
            raise ValueError("'decay' is that of an average: set 'self: average', or leave it out")
        return self

    @property
    def moment(self) -> str:
        """The field ``self``, under a name that reads better."""
        return str(self.__dict__["self"])

    @property
    def label(self) -> str:
        return "self"

    def build(self, start: LanguageModel | None) -> SelfGuide:
        assert start is not None, "made after the policy"
        average = Snapshot(start) if self.moment == "average" else None
        model = start if average is None else average.language_model
        return SelfGuide(model, start.tokenizer, self.sampling, average=average, decay=self.decay)


class SelfGuide(LocalGuide):
    """Scores with the policy, and writes with its frozen start, whichever hint that may read (see `Hint.reader`)."""

    def __init__(
        self,
        language_model: LanguageModel,
        policy_tokenizer: PreTrainedTokenizerBase,
        sampling: Sampling,
        *,
        average: Snapshot | None = None,
        decay: float = 0.0,
    ) -> None:
        """``average`` holds the model's weights, where they follow the policy's."""
        super().__init__(language_model, policy_tokenizer, sampling)
        self._average = average
        self._decay = decay

    def follow(self) -> None:
        """See `FollowingGuide.follow`."""
        if self._average is not None:
            self._average.update(1 - self._decay)

    @property
    def moving(self) -> Sequence[Tensor]:
        """See `FollowingGuide.moving`."""
        return () if self._average is None else self._average.weights
