"""Every rule between the parts of a run. Each is a function to a sentence, or to None where all is well.

There are three kinds, by what they look at: `RULES` read the configuration alone and are checked whenever one is made;
`PART_RULES` open what a section names, and load no weights; `DATA_RULES` read the task's first samples too. The rules
within one algorithm are in `rlgf.algorithms.rules`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlgf.algorithms.rules import lacking
from rlgf.errors import UserError
from rlgf.guides.config import guide_models, http_configs, own_guides, scoreless_key
from rlgf.guides.ensemble import EnsembleConfig
from rlgf.guides.own import own_guide
from rlgf.metrics import Metric
from rlgf.metrics.base import check_needs
from rlgf.models.loading import ModelConfig, context_length, load_model_config
from rlgf.models.samplers import EngineConfig
from rlgf.models.samplers import rules as sampler_rules
from rlgf.models.scratch import ScratchConfig
from rlgf.rewards.base import LearnedReward
from rlgf.rewards.build import named_reward
from rlgf.rollout.config import RolloutConfig
from rlgf.tasks import Task, load_split
from rlgf.types import Sample

if TYPE_CHECKING:
    from rlgf.config import Config

Rule = Callable[["Config"], str | None]


# Of sections that have to be there, unless Python gives an object in place of one.


def a_task_is_there(config: Config) -> str | None:
    return "'task' is missing: the recipe must set it." if config.task is None else None


def a_policy_is_there(config: Config) -> str | None:
    if config.policy.model is not None or config.policy.scratch is not None:
        return None
    if "policy" in config.model_fields_set:
        return "'policy': give exactly one of 'model' and 'scratch'."
    return "'policy' is missing: the recipe must set it."


def a_guide_is_there(config: Config) -> str | None:
    if config.guide is None and any(row.needs_guide for row in config.algorithm.rows):
        return f"algorithm '{config.algorithm.name}' needs a guide: give a 'guide:' section, such as guide.model."
    return None


def a_reward_is_there(config: Config) -> str | None:
    if config.reward is None and any(row.needs_reward for row in config.algorithm.rows):
        return f"algorithm '{config.algorithm.name}' needs a reward: give a 'reward:' section."
    return None


SECTIONS: Mapping[str, Rule] = {
    "task": a_task_is_there,
    "policy": a_policy_is_there,
    "guide": a_guide_is_there,
    "reward": a_reward_is_there,
}


# Of the configuration alone.


def the_guide_has_probabilities(config: Config) -> str | None:
    distills = config.guide is not None and any(row.distills for row in config.algorithm.rows)
    scoreless = scoreless_key(config.guide) if config.guide is not None and distills else None
    if scoreless is None:
        return None
    return (
        f"algorithm '{config.algorithm.name}' reads the guide's probabilities (the loss 'distillation'), and a guide "
        f"given by 'guide.{scoreless}' has none: set 'guide.model' to a causal model with the policy's "
        "tokenizer, or name a class of your own with a method 'log_distribution(tokens)'."
    )


def groups_fill_the_episodes(config: Config) -> str | None:
    for row in config.algorithm.rows:
        if config.rollout.episodes % row.group_size:
            return (
                f"'rollout.episodes' {config.rollout.episodes} must be a multiple of the 'algorithm.group_size' "
                f"{row.group_size} of '{row.name}'."
            )
    return None


def given_texts_may_be_short(config: Config) -> str | None:
    for row in config.algorithm.rows:
        if row.from_pairs and config.rollout.min_response_tokens:
            return (
                f"algorithm '{row.name}' learns from given texts of any length: set 'rollout.min_response_tokens: 0' "
                f"(it is {config.rollout.min_response_tokens})."
            )
    return None


def logged_names_differ(config: Config) -> str | None:
    if config.reward is None or not isinstance(config.guide, EnsembleConfig):
        return None
    for name in sorted((config.reward.terms or {}).keys() & config.guide.guides.keys()):
        return (
            f"a term of the reward and a guide are both called '{name}', and 'reward/{name}' is logged "
            "for each: give one of them another name."
        )
    return None


def something_is_left_without_the_guide(config: Config) -> str | None:
    for server in http_configs(config.guide) if config.guide is not None else []:
        if server.budget.then == "unguided" and config.algorithm.unguided is None:
            return (
                f"'guide.budget.then: unguided' does not fit algorithm '{config.algorithm.name}': without its "
                "guide nobody finishes its texts; set 'stop'."
            )
    return None


def the_engine_fits_the_policy(config: Config) -> str | None:
    adapter = config.policy.lora is not None
    return sampler_rules.cannot_train(config.sampler, config.rollout.sampling, adapter=adapter)


def engines_are_installed(config: Config) -> str | None:
    return _first(sampler_rules.cannot_start(engine, where) for where, engine in _engines(config))


RULES: tuple[Rule, ...] = (
    the_guide_has_probabilities,
    groups_fill_the_episodes,
    given_texts_may_be_short,
    logged_names_differ,
    something_is_left_without_the_guide,
    the_engine_fits_the_policy,
    engines_are_installed,
)


# Of what a section names, by that section: they do not hold for a part that was made by hand.


def the_policy_holds_the_texts(config: Config) -> str | None:
    return _too_short("policy", config.policy.source, config.rollout)


def the_engine_runs_the_policy(config: Config) -> str | None:
    return sampler_rules.cannot_run(config.sampler, config.policy.source)


def engines_run_the_guides(config: Config) -> str | None:
    models = guide_models(config.guide) if config.guide is not None else []
    return _first(sampler_rules.cannot_run(model.sampler, model) for model in models)


def engines_have_one_process(config: Config) -> str | None:
    return _first(sampler_rules.in_several_processes(engine) for _, engine in _engines(config))


def guides_hold_the_texts(config: Config) -> str | None:
    models = guide_models(config.guide) if config.guide is not None else []
    return _first(_too_short("guide", model, config.rollout) for model in models)


def own_guides_can_write(config: Config) -> str | None:
    for one in own_guides(config.guide) if config.guide is not None else []:
        own_guide(one)
    return None


def rewards_can_be_called(config: Config) -> str | None:
    named_rewards(config)
    return None


def the_judge_can_be_called(config: Config) -> str | None:
    if config.evaluation.judge is not None:
        named_reward(config.evaluation.judge, {})
    return None


PART_RULES: Mapping[str, tuple[Rule, ...]] = {
    "policy": (the_policy_holds_the_texts, the_engine_runs_the_policy),
    "guide": (own_guides_can_write, guides_hold_the_texts, engines_run_the_guides),
    "sampler": (engines_have_one_process,),
    "reward": (rewards_can_be_called,),
    "evaluation": (the_judge_can_be_called,),
}


def named_rewards(config: Config) -> list[Any]:
    """The classes and functions that the recipe's rewards are made from, none of them called.

    Raises:
        UserError: see `named_reward`.
    """
    return [named_reward(name, options) for name, options in config.reward.named] if config.reward else []


# Of the data, with everybody who reads it.


@dataclass(frozen=True)
class Found:
    """What there is before models load."""

    task: Task
    train: Sequence[Sample]
    metrics: Mapping[str, Metric]
    rewards: Sequence[Any]
    """Each reward by itself, or the class that it is to be made from."""


DataRule = Callable[["Config", Found], str | None]


def samples_have_what_the_algorithm_reads(config: Config, found: Found) -> str | None:
    return _first(lacking(row, found.train[0]) for row in config.algorithm.rows)


def metrics_find_what_they_need(config: Config, found: Found) -> str | None:
    needing = {name: metric for name, metric in found.metrics.items() if hasattr(metric, "needs")}
    counts = {"validation": config.evaluation.samples, "test": config.evaluation.test_samples}
    for split, count in counts.items() if needing else ():
        check_samples(needing, load_split(found.task, split)[:count], f"the task's split '{split}'")
    return None


def the_reward_learns(config: Config, found: Found) -> str | None:
    learns = any(_is(one, LearnedReward) for one in found.rewards)
    if not learns and any(row.learned_reward for row in config.algorithm.rows):
        return (
            f"algorithm '{config.algorithm.name}' needs a reward that learns beside the policy: set "
            "'reward: discriminator', or name a class of your own with 'update(rollout)', 'state_dict()' "
            "and 'load_state_dict(state)'."
        )
    return None


def what_a_reward_learns_is_kept(config: Config, found: Found) -> str | None:
    for one in found.rewards:
        if hasattr(one, "update") and not _is(one, LearnedReward):
            return (
                f"the reward '{_class_of(one).__name__}' has 'update', and what it learns would be lost with the run: "
                "give it 'state_dict()' and 'load_state_dict(state)' too."
            )
    return None


def rewards_find_their_references(config: Config, found: Found) -> str | None:
    for one in found.rewards:
        if getattr(one, "needs_references", False) and not found.train[0].references:
            return (
                f"the reward '{_class_of(one).__name__}' learns from reference texts, and the first sample of "
                "'train' has none: give the task's 'reference_field', or choose another reward."
            )
    return None


DATA_RULES: tuple[DataRule, ...] = (
    samples_have_what_the_algorithm_reads,
    metrics_find_what_they_need,
    the_reward_learns,
    what_a_reward_learns_is_kept,
    rewards_find_their_references,
)


# Asking them.


# Of a run whose processes share the weights of its models.


def shared_weights_are_not_quantized(config: Config) -> str | None:
    if config.policy.quantization is None:
        return None
    return "'policy.quantization' does not go with FSDP: leave it out, or start the run without FSDP."


def a_critic_of_shared_adapters_is_a_head(config: Config) -> str | None:
    if config.policy.lora is None or config.policy.critic == "head":
        return None
    if all(row.critic is None for row in config.algorithm.rows):
        return None
    return (
        "with 'policy.lora' and FSDP a critic of its own adapter does not run: set 'policy.critic: head', or start the "
        "run without FSDP."
    )


SHARD_RULES: tuple[Rule, ...] = (shared_weights_are_not_quantized, a_critic_of_shared_adapters_is_a_head)


def broken(config: Config, given: Collection[str] = ()) -> Iterator[str]:
    """The faults between the sections of a configuration, one sentence for each rule.

    Args:
        given: sections in whose place Python gives an object.
    """
    needed = [rule for section, rule in SECTIONS.items() if section not in given]
    return _broken([*needed, *RULES], config)


def broken_parts(config: Config, sections: Iterable[str] = PART_RULES) -> Iterator[str]:
    """The faults of all that sections of a recipe name, before any weights load.

    Args:
        sections: those whose parts are made from the recipe.
    """
    return _broken((rule for section in sections for rule in PART_RULES[section]), config)


def broken_by_shards(config: Config) -> Iterator[str]:
    """The faults of a run whose processes share the weights of its models."""
    return _broken(SHARD_RULES, config)


def broken_by_data(config: Config, found: Found) -> Iterator[str]:
    """The faults between the configuration and the data."""
    return _broken(DATA_RULES, config, found)


def require(sentences: Iterator[str]) -> None:
    """
    Raises:
        UserError: the first sentence, where there is one.
    """
    for sentence in sentences:
        raise UserError(sentence)


def check_samples(metrics: Mapping[str, Metric], samples: Sequence[Sample], where: str) -> None:
    """Refuse samples that lack what a metric needs.

    Raises:
        UserError: names the metric, the sample and what it lacks.
    """
    remedy = "let the task give it, or take the metric out of 'evaluation.metrics'"
    check_needs(metrics, samples, lambda i: f"sample {i} of {where}", remedy)


def _broken(rules: Iterable[Callable[..., str | None]], *given: Any) -> Iterator[str]:
    for rule in rules:
        try:
            sentence = rule(*given)
        except UserError as error:  # something that a rule opens cannot be had
            sentence = str(error)
        if sentence is not None:
            yield sentence


def _first(sentences: Iterable[str | None]) -> str | None:
    return next((sentence for sentence in sentences if sentence is not None), None)


def _too_short(who: str, model: ModelConfig | ScratchConfig, config: RolloutConfig) -> str | None:
    """Whether prompts with responses are more than a model can hold."""
    prompt, response = config.max_prompt_tokens, config.max_response_tokens
    length, needed = context_length(model), prompt + response
    if length is not None and isinstance(model, ModelConfig) and load_model_config(model).is_encoder_decoder:
        # The encoder holds the prompt, and the decoder the response after at most two tokens.
        needed = max(prompt, response + 2)
    if length is None or needed <= length:
        return None
    return (
        f"'rollout.max_prompt_tokens' {prompt} and 'rollout.max_response_tokens' {response} "
        f"make {needed} tokens, and the {who}'s context holds {length}: lower one of them."
    )


def _engines(config: Config) -> Iterator[tuple[str, EngineConfig]]:
    """Every engine that writes, by the section that says so."""
    yield "sampler", config.sampler
    for guide in guide_models(config.guide) if config.guide is not None else []:
        yield "guide.sampler", guide.sampler


def _class_of(one: Any) -> type:
    return one if inspect.isclass(one) else type(one)


def _is(one: Any, protocol: type) -> bool:
    return issubclass(one, protocol) if inspect.isclass(one) else isinstance(one, protocol)
