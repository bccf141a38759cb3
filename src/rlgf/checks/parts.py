"""Rules of what a section of a recipe names: they open it, load no weights, and do not hold for parts made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from rlgf import distributed
from rlgf.checks.ahead import one_process_works_ahead
from rlgf.checks.engines import (
    a_gpu_has_one_engine,
    engines_have_one_process,
    engines_run_the_guides,
    the_engine_runs_the_policy,
)
from rlgf.checks.rule import Rule, first
from rlgf.environments.base import named_environment, stop_of
from rlgf.guides.config import members
from rlgf.guides.http_config import HTTPGuideConfig
from rlgf.guides.local import LocalGuideConfig
from rlgf.guides.own import OwnGuideConfig, own_guide
from rlgf.guides.replay import ReplayGuide, ReplayGuideConfig
from rlgf.models.encoder_decoder import START_TOKENS
from rlgf.models.loading import ModelConfig, context_of, load_model_config
from rlgf.models.scratch import ScratchConfig
from rlgf.rewards.build import named_judge, named_reward
from rlgf.sections import Sections


def the_policy_holds_the_texts(config: Sections) -> str | None:
    return _named_too_short("policy", config.policy.source, config)


def every_process_has_a_prompt(config: Sections) -> str | None:
    processes = distributed.launched()
    for row in config.algorithm.rows:
        count = config.rollout.prompts(row)
        if count < processes:
            return (
                f"an update of algorithm '{row.name}' has {count} prompts for {processes} processes: raise 'rollout.episodes' "
                "or start fewer."
            )
    return None


def guides_hold_the_texts(config: Sections) -> str | None:
    models = members(config.guide, LocalGuideConfig)
    return first(_named_too_short("guide", model, config) for model in models)


def own_guides_can_write(config: Sections) -> str | None:
    for one in members(config.guide, OwnGuideConfig):
        own_guide(one)
    return None


def recordings_can_be_read(config: Sections) -> str | None:
    for one in members(config.guide, ReplayGuideConfig):
        ReplayGuide(one)
    return None


def rewards_can_be_called(config: Sections) -> str | None:
    named_rewards(config)
    return None


def the_judge_can_be_called(config: Sections) -> str | None:
    if (judge := config.evaluation.judge) is not None:
        named_judge(judge.name, judge.options, "'evaluation.judge'")
    return None


def the_environment_can_be_called(config: Sections) -> str | None:
    if config.environment is not None and config.environment.name is not None:
        named_environment(config.environment.name, config.environment.options)
    return None


def guides_leave_the_end_of_a_turn(config: Sections) -> str | None:
    if config.environment is None or config.environment.name is None or config.guide is None:
        return None
    end = stop_of(named_environment(config.environment.name, config.environment.options))
    for stop in (stop for one in members(config.guide, HTTPGuideConfig) for stop in one.stop):
        if end and (stop in end or end in stop):
            return (
                f"'guide.stop' has {stop!r}, and a turn ends after {end!r}: servers leave out what they stop at, so no turn "
                f"would end. Take it out of 'guide.stop'."
            )
    return None


PART_RULES: Mapping[str, tuple[Rule, ...]] = {
    "policy": (the_policy_holds_the_texts, the_engine_runs_the_policy),
    "guide": (own_guides_can_write, recordings_can_be_read, guides_hold_the_texts, engines_run_the_guides),
    "sampler": (
        engines_have_one_process,
        a_gpu_has_one_engine,
        one_process_works_ahead,
        every_process_has_a_prompt,
    ),
    "reward": (rewards_can_be_called,),
    "environment": (the_environment_can_be_called, guides_leave_the_end_of_a_turn),
    "evaluation": (the_judge_can_be_called,),
}


def named_rewards(config: Sections) -> list[Any]:
    """The classes and functions that the recipe's rewards are made from, none of them called; raises what `named_reward` does."""
    return [named_reward(name, options) for name, options in config.reward.named] if config.reward else []


def too_short(who: str, model: PreTrainedConfig, config: Sections) -> str | None:
    """Whether prompts with responses are more than a model of that configuration can hold."""
    if model.is_encoder_decoder:
        return _sides_too_short(who, model, config)
    return _shorter(who, context_of(model), config)


def _named_too_short(who: str, model: ModelConfig | ScratchConfig, config: Sections) -> str | None:
    """The same of a model that a recipe names."""
    if isinstance(model, ModelConfig):
        return too_short(who, load_model_config(model), config)
    return None if model.encoder_layers else _shorter(who, model.context, config)


def _shorter(who: str, length: int | None, config: Sections) -> str | None:
    rollout, needed = config.rollout, sum(config.rollout.room(config.algorithm))
    if length is None or needed <= length:
        return None
    return (
        f"{_named_prompt(config)} and 'rollout.max_response_tokens' {rollout.max_response_tokens} "
        f"make {needed} tokens, and the {who}'s context holds {length}: lower one of them."
    )


def _sides_too_short(who: str, model: PreTrainedConfig, config: Sections) -> str | None:
    """Whether prompts are more than an encoder holds, or responses more than its decoder."""
    prompt, response = config.rollout.room(config.algorithm)
    encoder, decoder = context_of(model, encoder=True), context_of(model)
    if encoder is not None and prompt > encoder:
        return f"{_named_prompt(config)} is more than the {who}'s encoder holds, {encoder} tokens: lower it."
    if decoder is not None and response + START_TOKENS > decoder:
        field = "max_response_tokens" if response == config.rollout.max_response_tokens else "max_hint_tokens"
        return (
            f"'rollout.{field}' {response} is more than the {who}'s decoder holds, {decoder} tokens with the {START_TOKENS} "
            f"before a text: lower it to {decoder - START_TOKENS} or less."
        )
    return None


def _named_prompt(config: Sections) -> str:
    """The lengths of the prompt as a message says them."""
    rollout = config.rollout
    hints = rollout.room(config.algorithm)[0] > rollout.max_prompt_tokens
    named = f" with 'rollout.max_hint_tokens' {rollout.max_hint_tokens}" if hints else ""
    return f"'rollout.max_prompt_tokens' {rollout.max_prompt_tokens}{named}"
