"""A guide of your own, named from a recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from rlgf.errors import UserError
from rlgf.guides.base import Guide, GuideSettings, require_write
from rlgf.models.language_model import LanguageModel
from rlgf.registry import check_options, resolve


class OwnGuideConfig(GuideSettings):
    """A guide of your own: ``module:Class`` or ``file.py:Class``, and the arguments it is made with."""

    mark: ClassVar[str] = "name"

    name: str
    options: dict[str, Any] = {}

    def build(self, start: LanguageModel | None) -> Guide:
        guide = own_guide(self)(**self.options)
        if not isinstance(guide, Guide):
            raise UserError(_NO_WRITE.format(self.name))
        require_write(guide, f"'guide.name' {self.name}")
        return guide

    @property
    def may_score(self) -> bool:
        made = own_guide(self)
        # What a function returns shows only once it is called.
        return not isinstance(made, type) or hasattr(made, "log_distribution")

    @property
    def may_score_texts(self) -> bool:
        made = own_guide(self)
        return not isinstance(made, type) or hasattr(made, "score")


def own_guide(config: OwnGuideConfig) -> Callable[..., Any]:
    """The class or function that makes a guide of your own, not called yet.

    Raises:
        UserError: it is not where its name says, makes no guide as far as can be seen, or has no such option.
    """
    made: Callable[..., Any] = resolve(config.name, {}, "guide.name")
    if not callable(made):
        raise UserError(
            f"'guide.name' {config.name} is not a class or function: it must make an object with write(requests)."
        )
    # What a function returns shows only once it is called.
    if isinstance(made, type) and not hasattr(made, "write"):
        raise UserError(_NO_WRITE.format(config.name))
    check_options(made, config.options, f"guide '{config.name}'")
    return made


_NO_WRITE = "'guide.name' {} has no method 'write(requests)'."
