"""What Python supplies in place of sections of a recipe: models, functions and data that are at hand."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from accelerate.tracking import GeneralTracker
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from rlgf.chat import set_defaults
from rlgf.config import Config, load_config
from rlgf.environments import Environment
from rlgf.errors import UserError
from rlgf.guides import Guide
from rlgf.guides.base import require_write
from rlgf.learning.rates import SchedulerFactory
from rlgf.learning.updater import OptimizerFactory
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig, check_vocabulary, load_tokenizer
from rlgf.recipe import Source
from rlgf.rewards.base import Reward, name_of
from rlgf.rewards.build import TermConfig, check_weights
from rlgf.rewards.composed import Composed, Term
from rlgf.strict import NamedConfig
from rlgf.tasks import Task
from rlgf.tasks.base import require_task
from rlgf.tasks.memory import MemoryTask


@dataclass(frozen=True)
class Given:
    """Objects that take the place of what a recipe would name."""

    task: Task | None = None
    policy: LanguageModel | None = None
    guide: Guide | None = None
    reward: Reward | None = None
    environment: Environment | None = None
    optimizer: OptimizerFactory | None = None
    scheduler: SchedulerFactory | None = None

    @property
    def sections(self) -> frozenset[str]:
        """The sections that a recipe may leave out."""
        names = ("task", "policy", "guide", "reward", "environment")
        return frozenset(name for name in names if getattr(self, name) is not None)


def gathered(
    *,
    policy: LanguageModel | PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase | None,
    data: Mapping[str, Any],
    task: Task | None,
    guide: Guide | None,
    reward: Reward | Sequence[Reward] | None,
    environment: Environment | None,
    optimizer: OptimizerFactory | None,
    scheduler: SchedulerFactory | None,
) -> Given:
    """Make of what a caller gave what a run works with; see `Trainer` for the arguments.

    Raises:
        UserError: something is of the wrong kind, lacks what belongs to it, or would not be used.
    """
    if task is not None and data.get("train") is not None:
        raise UserError("'task' and 'train' are both the run's data: give one of them.")
    if tokenizer is not None and (policy is None or isinstance(policy, LanguageModel)):
        raise UserError("'tokenizer' belongs to a model given as 'policy': give that too, or leave it out.")
    if data.get("train") is None and any(split is not None for split in data.values()):
        raise UserError("'validation' and 'test' need 'train' beside them.")
    if task is None and data.get("train") is not None:
        task = MemoryTask(**data)
    for name, one in (("task", task), ("guide", guide), ("environment", environment)):
        if inspect.isclass(one):
            raise UserError(f"'{name}' is the class {one.__name__}: give an object of it.")
    if task is not None:
        require_task(task, "'task' is")
    if guide is not None and not isinstance(guide, Guide):
        hint = "a guide by name or by settings is the recipe's section 'guide'"
        if inspect.isroutine(guide):
            hint = "make it the method of a class, as def write(self, requests): return f(requests)"
        raise UserError(
            f"'guide' must have a method write(requests), and {type(guide).__name__} has none: {hint}."
        )
    if guide is not None:
        require_write(guide, "'guide'")
    for name, maker in (("optimizer", optimizer), ("scheduler", scheduler)):
        if maker is not None and not callable(maker):
            what = "groups of parameters" if name == "optimizer" else "an optimizer"
            raise UserError(
                f"'{name}' must be a function that makes one of {what}, such as a functools.partial (it is a "
                f"{type(maker).__name__})."
            )
    if environment is not None and not callable(environment):
        raise UserError(
            f"'environment' must be a function such as f(turns, **kwargs) (it is a {type(environment).__name__})."
        )
    model, one = _language_model(policy, tokenizer), None if reward is None else _one_reward(reward)
    return Given(task, model, guide, one, environment, optimizer, scheduler)


def _language_model(policy: Any, tokenizer: PreTrainedTokenizerBase | None) -> LanguageModel | None:
    if policy is None or isinstance(policy, LanguageModel):
        return policy
    if not isinstance(policy, PreTrainedModel):
        hint = ""
        if hasattr(policy, "peft_config"):
            hint = ": give its base model, and the adapter as 'peft_config'"
        elif isinstance(policy, str):
            hint = ": a model by name is the recipe's 'policy.model'"
        elif inspect.isclass(policy):
            hint = f": make an object of {policy.__name__}, such as by its from_pretrained"
        elif isinstance(getattr(policy, "module", getattr(policy, "_orig_mod", None)), PreTrainedModel):
            hint = ": give the model that it is wrapped around"
        raise UserError(f"'policy' must be a model of transformers (it is a {type(policy).__name__}){hint}.")
    # What peft puts an adapter into, for a run of ours or for anybody else; merged, there is none left.
    layers = any(hasattr(module, "base_layer") for module in policy.modules())
    if layers or getattr(policy, "_hf_peft_config_loaded", False):
        raise UserError(
            "'policy' has an adapter in it, such as that of an earlier run, and a second one would be laid over it: load "
            "the base model anew, with 'peft_config' for an adapter of this run's, or give the model that the adapter is "
            "merged into."
        )
    if tokenizer is None:
        name = str(policy.name_or_path)
        if not name:
            raise UserError("'policy' is a model without a name: give its 'tokenizer' too.")
        tokenizer = load_tokenizer(ModelConfig(model=name))
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        inner = ": give its 'tokenizer'" if hasattr(tokenizer, "tokenizer") else ""
        raise UserError(
            f"'tokenizer' must be one of transformers (it is a {type(tokenizer).__name__}){inner}."
        )
    if any(parameter.is_meta for parameter in policy.parameters()):
        raise UserError(
            "'policy' has no weights, since it was made on the device 'meta': load it onto another."
        )
    check_vocabulary("'policy'", policy, tokenizer)
    if tokenizer.eos_token_id is None:
        raise UserError("'tokenizer' has no end-of-text token: set its eos_token.")
    return LanguageModel(policy, tokenizer)


def called(given: object) -> str:
    """What a run calls an object that was given in Python: a function's own name, also of a partial, else its class's."""
    if isinstance(given, Composed):
        return ", ".join(given.terms)
    return "train" if isinstance(given, MemoryTask) else name_of(given)


def fitted(given: Given, config: Config) -> Given:
    """The objects as the run's configuration has them: rows read by the options of the task 'data', rewards with the
    weights of the terms of the same names, a policy with what its chat template is told."""
    reward, terms, task = given.reward, config.reward.terms if config.reward is not None else None, given.task
    policy, options = given.policy, config.policy.chat_template_kwargs
    if policy is not None and options:
        # A copy, since the caller's own goes on reading chats as before.
        policy = replace(policy, tokenizer=copy.copy(policy.tokenizer))
        set_defaults(policy.tokenizer, options)
    if isinstance(task, MemoryTask) and config.task is not None:
        task = task.reading(config.task.options)
    if reward is not None and terms is not None:
        reward = _weighted(reward, terms)
    return replace(given, task=task, policy=policy, reward=reward)


def _weighted(reward: Reward, terms: Mapping[str, TermConfig]) -> Composed:
    given = reward.terms if isinstance(reward, Composed) else {called(reward): Term(reward)}
    return Composed(
        {
            name: Term(term.reward, terms[name].weight if name in terms else term.weight)
            for name, term in given.items()
        }
    )


def _one_reward(reward: Any) -> Reward:
    """A reward, or the sum of several."""
    if isinstance(reward, list | tuple):
        if not reward:
            raise UserError("'reward' is an empty list: give a function, or several.")
        named: dict[str, Term] = {}
        for one in reward:
            name = called(one)
            while name in named:
                name += "_"
            named[name] = Term(_one_reward(one))
        return Composed(named)
    if isinstance(reward, str):
        raise UserError(
            f"'reward' is the text '{reward}': a reward by name is the recipe's section 'reward', which for a reward model "
            "is {name: model, options: {model: FOLDER or hub name}}."
        )
    if isinstance(reward, PreTrainedModel) or type(reward).__module__.startswith("transformers.pipelines"):
        raise UserError(
            "'reward' is a model: give a function that asks it, or name its folder or its place on the hub in the recipe, as "
            "reward: {name: model, options: {model: ...}}."
        )
    if inspect.isclass(reward):
        raise UserError(f"'reward' is the class {reward.__name__}: give an object of it.")
    if not callable(reward):
        raise UserError(
            f"'reward' must be a function such as f(completions, **kwargs), or a list of them (it is a "
            f"{type(reward).__name__})."
        )
    return reward  # type: ignore[no-any-return]  # a callable


_TAKEN = ("r", "lora_alpha", "target_modules")
_IDLE = (
    *("fan_in_fan_out", "task_type", "inference_mode", "auto_mapping", "base_model_name_or_path", "revision"),
    "peft_version",
)
"""Fields of a `peft.LoraConfig` that the model settles, or that say nothing of an adapter that is yet to be trained."""


def adapter_settings(config: Any) -> dict[str, Any]:
    """What a recipe says of the adapter that a `peft.LoraConfig` describes.

    Raises:
        UserError: it is none, or asks for something that a run cannot do.
    """
    if getattr(config, "peft_type", None) != "LORA":
        raise UserError(f"'peft_config' must be a peft.LoraConfig (it is a {type(config).__name__}).")
    if config.lora_dropout:
        raise UserError(
            f"'peft_config' has lora_dropout {config.lora_dropout}: with dropout an unchanged policy would have ratios "
            "other than 1; set it to 0."
        )
    usual = type(config)().to_dict()
    for name, value in config.to_dict().items():
        if name not in (*_TAKEN, *_IDLE) and value != usual[name]:
            raise UserError(
                f"'peft_config' has {name} {value!r:.60}, and of it a run takes r, lora_alpha and target_modules alone: "
                "leave it out."
            )
    targets = config.target_modules
    layers = None if targets in (None, "all-linear") else targets
    if isinstance(layers, str):
        raise UserError("'peft_config' names its target_modules by a pattern: give a list of names.")
    return {"r": config.r, "alpha": config.lora_alpha, "targets": None if layers is None else sorted(layers)}


def listeners(callbacks: Any, trackers: Any) -> tuple[list[TrainerCallback], list[GeneralTracker]]:
    """Who is told of a run, as lists; of a class of callbacks, as the trainer of `transformers` takes it too, an object.

    Raises:
        UserError: one of them is not an object that can be told.
    """
    if isinstance(callbacks, list | tuple):
        callbacks = [
            one() if inspect.isclass(one) and issubclass(one, TrainerCallback) else one for one in callbacks
        ]
    return (
        _objects("callbacks", callbacks, TrainerCallback, "transformers.TrainerCallback"),
        _objects("trackers", trackers, GeneralTracker, "accelerate.tracking.GeneralTracker"),
    )


def _objects(name: str, given: Any, kind: type, called: str) -> list[Any]:
    given = () if given is None else given
    if not isinstance(given, list | tuple):
        raise UserError(f"'{name}' must be a list of objects of {called} (it is a {type(given).__name__}).")
    for one in given:
        if not isinstance(one, kind):
            shown = f"the class {one.__name__}" if inspect.isclass(one) else f"a {type(one).__name__}"
            raise UserError(f"'{name}' must hold objects of {called} (one is {shown}).")
    return list(given)


def configured(
    config: Config | Source | Sequence[Source] | None, given: Given, peft_config: Any = None
) -> Config:
    """The configuration of a run, whose sections may be missing where an object is given.

    Raises:
        UserError: see `load_config` and `adapter_settings`; or both the configuration and a scheduler change the rates.
    """
    over: dict[str, Any] = {}
    if given.policy is not None:  # a model that the recipe names is then not the run's
        over |= {"model": None, "scratch": None}
    if peft_config is not None:
        over["lora"] = adapter_settings(peft_config)
    sections: dict[str, Any] = {"policy": over}
    if given.environment is not None:  # the section says how many turns, and rules look whether it is there
        sections["environment"] = {}
    if over or given.environment is not None or not isinstance(config, Config):
        if isinstance(config, Config):
            config = config.model_dump(mode="json")
        sources: list[Source] = list(config) if isinstance(config, list | tuple) else [config]  # type: ignore[list-item]
        config = load_config(*sources, sections, given=given.sections)
    config = config.model_copy(update=dict(_replaced(config, given)))
    rates = (config.update.learning_rate, config.update.critic_learning_rate)
    if given.scheduler is not None and any(rate is not None and rate.changes for rate in rates):
        raise UserError(
            "'update.learning_rate' and 'update.critic_learning_rate' must be plain numbers beside a 'scheduler' given "
            "in Python, which changes them over the run."
        )
    return config


def _replaced(config: Config, given: Given) -> Iterator[tuple[str, Any]]:
    """The sections in whose place an object is given, with what of them still counts: nothing else would be true. Raises a
    `UserError` where a weight is of no reward that is given."""
    if given.task is not None:
        reads = config.task if config.task is not None and config.task.name == "data" else None
        options = (
            given.task.reading(reads.options).options if reads and isinstance(given.task, MemoryTask) else {}
        )
        yield "task", NamedConfig(name="data", options=options) if options else None
    if given.guide is not None and (config.guide is None or config.guide.candidates == 1):
        yield "guide", None
    section = config.reward
    if given.reward is None or section is None:
        return
    names = list(given.reward.terms) if isinstance(given.reward, Composed) else [called(given.reward)]
    terms = section.terms or {}
    unknown = [name for name in terms if name not in names]
    if isinstance(given.reward, Composed) or not unknown:
        check_weights(terms, names)
    kept = terms if terms and not unknown else None
    left = {"name": None, "options": {}, "terms": kept}
    says_nothing = kept is None and section.clip is None and not section.normalize
    yield "reward", None if says_nothing else section.model_copy(update=left)
