"""What a recipe says under ``guide:``, whichever kind of guide it is."""

from __future__ import annotations

from typing import Annotated, ClassVar, Protocol, runtime_checkable

from pydantic import Field

from rlgf.guides.base import Guide
from rlgf.identity import LATER
from rlgf.models.language_model import LanguageModel
from rlgf.strict import Strict


class GuideSettings(Strict):
    """The settings of one kind of guide."""

    candidates: Annotated[int, LATER] = Field(default=1, ge=1)
    """How many texts it writes for each that training asks for; the reward picks the best, so they must be whole."""

    mark: ClassVar[str]
    """The key of a recipe that makes it this kind, see `rlgf.guides.config.KINDS`."""

    @property
    def members(self) -> list[GuideSettings]:
        """The guide itself, or those that it chooses among."""
        return [self]

    @property
    def label(self) -> str:
        """How tables and model cards name it."""
        return str(getattr(self, self.mark))

    @property
    def early(self) -> bool:
        """Whether it can be made, and asked, before the policy is loaded."""
        return all(member.early for member in self.members if member is not self)

    @property
    def may_score(self) -> bool:
        """Whether it has probabilities, as far as can be told before it is made."""
        return False

    @property
    def may_score_texts(self) -> bool:
        """Whether it says how probable a text is, as far as can be told before it is made."""
        return False


@runtime_checkable
class GuideKind(Protocol):
    """A class of guides that a recipe can ask for."""

    settings: ClassVar[type[GuideSettings]]

    @classmethod
    def from_settings(cls, settings: GuideSettings, start: LanguageModel | None) -> Guide:
        """The guide.

        Args:
            start: the policy's frozen start, with the policy's tokenizer; None before the policy is loaded, for kinds
                that can do without (see `GuideSettings.early`).

        Raises:
            UserError: what it needs cannot be had.
        """
        ...
