"""From what a recipe says under ``guide:`` to a guide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, SerializeAsAny

from rlgf.errors import UserError
from rlgf.guides.base import Guide, ScoringGuide, TextScoringGuide
from rlgf.guides.itself import SelfGuideConfig
from rlgf.guides.local import LocalGuide
from rlgf.guides.settings import GuideKind, GuideSettings
from rlgf.models.encoder_decoder import is_encoder_decoder
from rlgf.models.language_model import LanguageModel
from rlgf.registry import resolve

Kind = TypeVar("Kind", bound=GuideSettings)
KINDS: Mapping[str, str] = {
    "url": "rlgf.guides.http:HTTPGuide",
    "file": "rlgf.guides.replay:ReplayGuide",
    "guides": "rlgf.guides.ensemble:EnsembleGuide",
    "oracle": "rlgf.guides.oracle:OracleGuide",
    "name": "rlgf.guides.own:OwnGuide",
    "self": "rlgf.guides.itself:SelfGuide",
    "model": "rlgf.guides.local:LocalGuide",
}
"""The kinds of guides, by the key of a recipe that tells one from those after it."""


def kind_of(data: Mapping[str, Any]) -> GuideKind:
    """The kind of guide that a recipe describes."""
    found: GuideKind = resolve(next((key for key in KINDS if key in data), "model"), KINDS, "guide")
    return found


def kinds() -> list[type[GuideSettings]]:
    """The settings of all kinds of guides."""
    return [resolve(key, KINDS, "guide").settings for key in KINDS]


def _settings(data: Any) -> GuideSettings:
    if isinstance(data, GuideSettings):
        return data
    if not isinstance(data, Mapping):
        raise ValueError(f"it must be a mapping with one of the keys {', '.join(KINDS)}")
    return kind_of(data).settings.model_validate(data)


GuideConfig = Annotated[SerializeAsAny[GuideSettings], BeforeValidator(_settings)]
"""What a recipe may say of a guide."""


def fit_for(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What stays of a guide section when a later recipe is laid over it.

    Where that makes another kind of guide of it, settings that this kind does not know go.
    """
    before = kind_of(old)
    names_another = any(key in new and key not in before.settings.model_fields for key in KINDS)
    after = kind_of(new if names_another else {**old, **new})
    if before is after:
        return dict(old)
    return {key: value for key, value in old.items() if key in after.settings.model_fields}


def members(config: GuideSettings | None, kind: type[Kind]) -> list[Kind]:
    """The guides of one kind: the guide itself, or some of those that it chooses from. Empty without a guide."""
    return [member for member in config.members if isinstance(member, kind)] if config is not None else []


def follows_policy(config: GuideSettings) -> bool:
    """Whether a guide changes as the policy trains."""
    return any(moment != "start" for moment in _moments(config))


def keeps_average(config: GuideSettings) -> bool:
    """Whether a guide is a moving average of the policy."""
    return "average" in _moments(config)


def _moments(config: GuideSettings) -> list[str]:
    return [member.moment for member in members(config, SelfGuideConfig)]


def scoring_guide(guide: Guide | None, policy: LanguageModel) -> ScoringGuide:
    """The same guide, made sure that it can score the policy's tokens.

    Raises:
        UserError: it has no probabilities, or those of another vocabulary.
    """
    if not isinstance(guide, ScoringGuide):
        raise UserError(
            f"the guide {type(guide).__name__} has no method 'log_distribution(tokens)', which distillation "
            "reads: set 'guide.model' to a causal model with the policy's tokenizer, or add the method."
        )
    if isinstance(guide, LocalGuide):
        guide.check_vocabulary()
        if is_encoder_decoder(guide.language_model.model) != is_encoder_decoder(policy.model):
            raise UserError(
                "distillation compares the guide with the policy token by token, and one of them is an "
                "encoder-decoder model and the other is not: set 'guide.model' to one of the policy's kind."
            )
    return guide


def text_scoring_guide(guide: Guide | None) -> TextScoringGuide:
    """The same guide, made sure that it says how probable a text is.

    Raises:
        UserError: it does not.
    """
    if not isinstance(guide, TextScoringGuide):
        raise UserError(
            f"the guide {type(guide).__name__} has no method 'score(requests)', which says how probable a text is: set "
            "'guide.model' or 'guide.url', or add the method."
        )
    return guide


def build_guide(config: GuideSettings, start: LanguageModel | None = None) -> Guide:
    """The guide that a recipe describes.

    Args:
        start: the policy's frozen start: local models look whether its tokenizer is their own, and the policy may be its
            own guide.

    Raises:
        UserError: a model, a file or a cache cannot be read, or an own guide has no `write`.
    """
    kind: GuideKind = resolve(config.mark, KINDS, "guide")
    return kind.from_settings(config, start)
