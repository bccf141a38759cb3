"""The policy as its own guide: what it was when the run began."""

from __future__ import annotations

from typing import ClassVar, Literal

from rlgf.guides.local import LocalGuide
from rlgf.guides.settings import GuideSettings
from rlgf.models.language_model import LanguageModel
from rlgf.models.sampling import Sampling


class OwnStartGuideConfig(GuideSettings):
    """The policy's frozen start, and how it is decoded; in a recipe ``guide: self`` is short for it.

    It is the model that the KL penalty compares with, and with an adapter the base without it, so it takes no memory of
    its own. It does not change when the policy trains.
    """

    mark: ClassVar[str] = "self"

    self: Literal[True]
    sampling: Sampling = Sampling()

    @property
    def label(self) -> str:
        return "self"

    @property
    def early(self) -> bool:
        return False

    @property
    def never_scores(self) -> bool:
        return False

    @property
    def never_scores_texts(self) -> bool:
        return False


class OwnStartGuide(LocalGuide):
    """Writes and scores with the policy's frozen start, whichever hint that may read (see `Hint.reader`)."""

    settings: ClassVar[type[GuideSettings]] = OwnStartGuideConfig

    @classmethod
    def from_settings(cls, settings: GuideSettings, start: LanguageModel | None) -> OwnStartGuide:
        """See `GuideKind.from_settings`."""
        assert isinstance(settings, OwnStartGuideConfig), "made by its kind"
        assert start is not None, "made after the policy"
        return cls(start, start.tokenizer, settings.sampling)
