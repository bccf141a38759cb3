"""Makes a guide of a recipe's ``guide:`` section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, SerializeAsAny

from rlgf.errors import UserError
from rlgf.guides.base import Guide, GuideSettings, ScoringGuide, TextScoringGuide
from rlgf.guides.itself import SelfGuideConfig
from rlgf.guides.local import LocalGuide
from rlgf.models.encoder_decoder import is_encoder_decoder
from rlgf.models.language_model import LanguageModel
from rlgf.registry import resolve

Kind = TypeVar("Kind", bound=GuideSettings)
KINDS: Mapping[str, str] = {
    "url": "rlgf.guides.http_config:HTTPGuideConfig",
    "file": "rlgf.guides.replay:ReplayGuideConfig",
    "guides": "rlgf.guides.ensemble:EnsembleConfig",
    "oracle": "rlgf.guides.oracle:OracleGuideConfig",
    "name": "rlgf.guides.own:OwnGuideConfig",
    "self": "rlgf.guides.itself:SelfGuideConfig",
    "model": "rlgf.guides.local:LocalGuideConfig",
}
"""The settings of each kind of guide, by the key of a recipe that tells it from those after it."""


def kinds() -> list[type[GuideSettings]]:
    return [resolve(key, KINDS, "guide") for key in KINDS]


def kind_of(data: Mapping[str, Any]) -> type[GuideSettings]:
    return next((kind for kind in kinds() if kind.mark in data), kinds()[-1])


def _settings(data: Any) -> GuideSettings:
    if isinstance(data, GuideSettings):
        return data
    if not isinstance(data, Mapping):
        hint = ""
        if isinstance(data, str):
            key = "url" if "://" in data else "name" if ":" in data else "model"
            hint = f", such as {{{key}: {data}}}"
        raise ValueError(f"it must be a mapping with one of the keys {', '.join(KINDS)}{hint}")
    return kind_of(data).model_validate(data)


GuideConfig = Annotated[SerializeAsAny[GuideSettings], BeforeValidator(_settings)]
"""What a recipe may say of a guide."""


def fit_for(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What stays of a guide section when a later recipe is laid over it.

    Where that makes another kind of guide of it, settings that this kind does not know go.
    """
    before = kind_of(old)
    names_another = any(key in new and key not in before.model_fields for key in KINDS)
    after = kind_of(new if names_another else {**old, **new})
    if before is after:
        return dict(old)
    return {key: value for key, value in old.items() if key in after.model_fields}


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
    """The same guide, checked to score the policy's tokens.

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
    """The same guide, checked to say how probable a text is.

    Raises:
        UserError: it does not.
    """
    if not isinstance(guide, TextScoringGuide):
        raise UserError(
            f"the guide {type(guide).__name__} has no method 'score(requests)', which says how probable a text is: set "
            "'guide.model' or 'guide.url', or add the method."
        )
    return guide
