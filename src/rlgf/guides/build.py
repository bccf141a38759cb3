"""From what a recipe says under ``guide:`` to a guide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from transformers import PreTrainedTokenizerBase

from rlgf.errors import UserError, nearest
from rlgf.guides.base import Guide, ScoringGuide
from rlgf.guides.ensemble import EnsembleGuide
from rlgf.guides.http_config import HTTPGuideConfig
from rlgf.guides.local import LocalGuide, LocalGuideConfig
from rlgf.guides.remote import HTTPGuide
from rlgf.guides.replay import ReplayGuide, ReplayGuideConfig
from rlgf.models.encoder_decoder import is_encoder_decoder
from rlgf.models.loading import LanguageModel, load_language_model
from rlgf.registry import resolve
from rlgf.tasks.base import check_options

TAG = "guide:"
"""What the tags of the kinds below begin with, so that they can be told from keys of a recipe."""

_MARKS = {"url": "http", "file": "replay", "guides": "ensemble", "name": "own"}
"""The key that only this kind of guide has."""


class OwnGuideConfig(BaseModel):
    """A guide of your own: ``module:Class`` or ``file.py:Class``, and the arguments it is made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    options: dict[str, Any] = {}


class EnsembleConfig(BaseModel):
    """Several guides, of which each episode gets one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    guides: dict[str, GuideConfig] = Field(min_length=2)
    weights: dict[str, Annotated[float, Field(gt=0)]] = {}
    """How often each is chosen, relative to the others; 1 where nothing is said."""

    @model_validator(mode="after")
    def _known(self) -> EnsembleConfig:
        for name in self.weights.keys() - self.guides.keys():
            raise ValueError(f"'weights' names '{name}', which is no guide: {nearest(name, self.guides)}")
        return self


KINDS: Mapping[str, type[BaseModel]] = {
    "http": HTTPGuideConfig,
    "replay": ReplayGuideConfig,
    "ensemble": EnsembleConfig,
    "own": OwnGuideConfig,
    "local": LocalGuideConfig,
}


def fit_for(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What stays of a guide section when a later recipe is laid over it.

    Where that makes another kind of guide of it, settings that this kind does not know go.
    """
    before, after = _kind(old), _kind({**old, **new})
    known = KINDS[after.removeprefix(TAG)].model_fields
    return {key: value for key, value in old.items() if before == after or key in known}


def _kind(data: Any) -> str:
    """Which kind of guide a mapping describes."""
    keys = (
        data if isinstance(data, Mapping) else type(data).model_fields if isinstance(data, BaseModel) else ()
    )
    return TAG + next((kind for mark, kind in _MARKS.items() if mark in keys), "local")


GuideConfig = Annotated[
    Annotated[LocalGuideConfig, Tag(TAG + "local")]
    | Annotated[HTTPGuideConfig, Tag(TAG + "http")]
    | Annotated[ReplayGuideConfig, Tag(TAG + "replay")]
    | Annotated[EnsembleConfig, Tag(TAG + "ensemble")]
    | Annotated[OwnGuideConfig, Tag(TAG + "own")],
    Discriminator(_kind),
]


def _members(config: GuideConfig) -> Iterator[GuideConfig]:
    """The guide itself, or those of an ensemble."""
    if isinstance(config, EnsembleConfig):
        for member in config.guides.values():
            yield from _members(member)
    else:
        yield config


def guide_models(config: GuideConfig) -> list[LocalGuideConfig]:
    """The models that a guide loads into this process."""
    return [member for member in _members(config) if isinstance(member, LocalGuideConfig)]


def http_configs(config: GuideConfig) -> list[HTTPGuideConfig]:
    """The servers that a guide asks."""
    return [member for member in _members(config) if isinstance(member, HTTPGuideConfig)]


def own_guides(config: GuideConfig) -> list[OwnGuideConfig]:
    """The guides of your own."""
    return [member for member in _members(config) if isinstance(member, OwnGuideConfig)]


def own_guide(config: OwnGuideConfig) -> Callable[..., Any]:
    """The class or function that makes a guide of your own, not called yet.

    Raises:
        UserError: it is not where its name says, makes no guide as far as can be seen, or has no such option.
    """
    made: Callable[..., Any] = resolve(config.name, {}, "guide.name")
    if not callable(made):
        raise UserError(
            f"'guide.name' {config.name} is no class or function: it must make an object with write(requests)."
        )
    # What a function returns shows only once it is called.
    if isinstance(made, type) and not hasattr(made, "write"):
        raise UserError(_NO_WRITE.format(config.name))
    check_options(made, config.options, f"guide '{config.name}'")
    return made


_NO_WRITE = "'guide.name' {} has no method 'write(requests)'."


def scoreless_key(config: GuideConfig) -> str | None:
    """The key that makes this a guide without probabilities; None where it may be a `ScoringGuide`.

    Raises:
        UserError: a guide of your own is not where its name says.
    """
    if isinstance(config, LocalGuideConfig):
        return None
    if isinstance(config, OwnGuideConfig):
        made = resolve(config.name, {}, "guide.name")
        # What a function returns shows only once it is called.
        if not isinstance(made, type) or hasattr(made, "log_distribution"):
            return None
    return next(mark for mark in _MARKS if mark in type(config).model_fields)


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


def describe(config: GuideConfig) -> str:
    """The guide's name, or those of an ensemble."""
    names = []
    for member in _members(config):
        if isinstance(member, ReplayGuideConfig):
            names.append(str(member.file))
        elif isinstance(member, OwnGuideConfig):
            names.append(member.name)
        elif not isinstance(member, EnsembleConfig):
            names.append(member.model)
    return ", ".join(names)


def build_guide(config: GuideConfig, policy_tokenizer: PreTrainedTokenizerBase | None = None) -> Guide:
    """The guide that a recipe describes.

    Args:
        policy_tokenizer: local models need it, to see whether it is their own.

    Raises:
        UserError: a model, a file or a cache cannot be read, or an own guide has no `write`.
    """
    if isinstance(config, EnsembleConfig):
        return EnsembleGuide(
            {
                name: (build_guide(member, policy_tokenizer), config.weights.get(name, 1.0))
                for name, member in config.guides.items()
            }
        )
    if isinstance(config, HTTPGuideConfig):
        return HTTPGuide(config)
    if isinstance(config, ReplayGuideConfig):
        return ReplayGuide(config)
    if isinstance(config, OwnGuideConfig):
        guide = own_guide(config)(**config.options)
        if not isinstance(guide, Guide):
            raise UserError(_NO_WRITE.format(config.name))
        return guide
    assert policy_tokenizer is not None, "a local model needs the policy's tokenizer"
    return LocalGuide(load_language_model(config), policy_tokenizer, config.sampling, config.max_batch_tokens)
