"""A guide of your own, named from a recipe."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PreTrainedTokenizerBase

from rlgf.errors import UserError
from rlgf.guides.base import Guide
from rlgf.guides.settings import GuideSettings
from rlgf.registry import resolve


class OwnGuideConfig(GuideSettings):
    """A guide of your own: ``module:Class`` or ``file.py:Class``, and the arguments it is made with."""

    mark: ClassVar[str] = "name"

    name: str
    options: dict[str, Any] = {}

    @property
    def never_scores(self) -> bool:
        made = resolve(self.name, {}, "guide.name")
        # What a function returns shows only once it is called.
        return isinstance(made, type) and not hasattr(made, "log_distribution")


class OwnGuide:
    """Makes guides of other classes than ours."""

    settings: ClassVar[type[GuideSettings]] = OwnGuideConfig

    @classmethod
    def from_settings(
        cls, settings: GuideSettings, policy_tokenizer: PreTrainedTokenizerBase | None
    ) -> Guide:
        """
        Raises:
            UserError: it is not where its name says, or has no `write`.
        """
        assert isinstance(settings, OwnGuideConfig), "made by its kind"
        guide = resolve(settings.name, {}, "guide.name")(**settings.options)
        if not isinstance(guide, Guide):
            raise UserError(f"'guide.name' {settings.name} has no method 'write(requests)'.")
        return guide
