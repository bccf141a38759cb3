"""Building what a run is made of from its configuration, cheap checks before models load."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from transformers import TrainerState

from rlgf import checks, distributed, seeding
from rlgf.config import Config
from rlgf.environments import Environment, EnvironmentConfig
from rlgf.errors import UserError
from rlgf.evaluation.evaluator import Evaluator
from rlgf.guides import Guide, scoring_guide, text_scoring_guide
from rlgf.guides.config import follows_policy, members
from rlgf.guides.local import LocalGuideConfig
from rlgf.learning.assessor import Assessor
from rlgf.learning.rates import SchedulerFactory
from rlgf.learning.updater import OptimizerFactory, Updater
from rlgf.metrics import Metric, build_metrics
from rlgf.models.language_model import LanguageModel
from rlgf.models.samplers import Sampler, build_sampler
from rlgf.models.samplers.served import require_server
from rlgf.rewards import Reward, Scale
from rlgf.rewards.base import PolicyReadingReward
from rlgf.rewards.composed import reads_policy, single_rewards
from rlgf.rollout.collector import Collector
from rlgf.rollout.dialogue import Dialogue
from rlgf.rollout.episodes import Rewards
from rlgf.run import memory
from rlgf.run.given import Given, called
from rlgf.run.models import Models, build_critics, load_others, load_policy
from rlgf.run.trials import asked_guide, check_chats, check_dialogues, check_hints, policy_template, scorers
from rlgf.states import digest
from rlgf.tasks import Task, build_task, load_split
from rlgf.tasks.chats import Prompted, PromptedTask
from rlgf.tasks.memory import MemoryTask
from rlgf.types import Sample


@dataclass
class Parts:
    """What a trainer works with."""

    task: PromptedTask
    train: Prompted
    policy: LanguageModel
    collector: Collector
    assessor: Assessor
    updater: Updater
    evaluator: Evaluator
    given: Mapping[str, str] = field(default_factory=dict)
    """What Python gave in place of the sections of a recipe, by name: 'task', 'reward' or 'guide'; and 'test', the
    argument whose rows the test reads."""

    @cached_property
    def data(self) -> str:
        """What tells whether two sets of training data are the same: their number, and up to 64 of them."""
        count = len(self.train)
        # As the task has them: a chat template may write the day's date into its prompts.
        some = [self.train.samples[number] for number in range(0, count, math.ceil(count / 64))]
        told = [[one.prompt or one.messages or "", list(one.references), one.rejected] for one in some]
        columns = [_written_out(one.columns) for one in some]
        return f"{count} samples with their columns ({digest([told, columns])[:16]})"

    def tell_rewards(self, updates: int, samples: int) -> None:
        """How far the run is, for rewards that ask."""
        for state in (self.assessor.trainer_state, self.evaluator.trainer_state):
            state.global_step = updates
            state.epoch = samples / len(self.train)

    def held_out(self, split: str) -> Sequence[Sample]:
        """Samples of a split that is not trained on.

        Raises:
            UserError: the split is empty.
        """
        return load_split(self.task, split)


def _written_out(columns: Mapping[str, Any]) -> str:
    """Columns as text, the same in every process; of an object that JSON does not know its kind alone."""
    return json.dumps(dict(columns), default=lambda value: type(value).__name__, skipkeys=True)


def build_parts(
    config: Config,
    *,
    task: Task | None = None,
    reward: Reward | None = None,
    guide: Guide | None = None,
    policy: LanguageModel | None = None,
    environment: Environment | None = None,
    optimizer: OptimizerFactory | None = None,
    scheduler: SchedulerFactory | None = None,
    evaluates: bool = False,
) -> Parts:
    """Build every part that the configuration names; those given here are used as they are. Called by all processes.

    Args:
        optimizer: default: AdamW.
        scheduler: default: the recipe's learning rates.
        evaluates: the policy is measured and not trained, so its KL is that to what its own run started from.

    Raises:
        UserError: a name is not known, data is empty, a context is too short, a model is not there, a guide
            that is learned from has no probabilities over the policy's vocabulary, a metric lacks a library or
            the held-out samples what it needs.
    """
    given = Given(task, policy, guide, reward, environment, optimizer, scheduler)
    checks.require(checks.broken_parts(config, [s for s in checks.PART_RULES if s not in given.sections]))
    if policy is None:
        memory.require_room(config, trains=not evaluates, adam=optimizer is None)
    elif short := checks.too_short("policy", policy.model.config, config):
        raise UserError(short)
    if config.sampler.server is not None:
        require_server(config.sampler, sum(config.rollout.room(config.algorithm)))
    with ExitStack() as undone:
        # What follows they do together, where they share the weights.
        with distributed.main_first():
            data = _data(config, given)
            if not evaluates:
                check_hints(config, lambda: data.task.template, data.train)
            if guide is None and config.guide is not None and config.guide.early:
                guide = asked_guide(config, data.train, undone, evaluates=evaluates)
            elif guide is None:  # what can be tried of one before its model loads
                check_chats(members(config.guide, LocalGuideConfig), data.train)
            if environment is None and config.environment is not None:
                environment = config.environment.build()
            if environment is not None:
                check_dialogues(environment, policy_template(config, policy), data.train)
            reward, judge = scorers(config, reward, data.train, in_turns=environment is not None)
        reward_reads = reads_policy(reward)
        begun = load_policy(config, policy, data.train, evaluates=evaluates, reward_reads=reward_reads)
        with distributed.main_first():
            models = load_others(config, begun, data.train)
            if isinstance(reward, PolicyReadingReward):
                reward.attach(models.policy, config.rollout, config.seed)
            if guide is None and config.guide is not None:
                # Of a policy that is measured, the start is that of the run which trained it.
                start = models.measured_against if evaluates else models.reference
                guide = config.guide.build(models.policy if follows_policy(config.guide) else start)
        all_there = replace(given, guide=guide, reward=reward, environment=environment)
        parts = _assembled(config, data, models, all_there, judge)
        undone.pop_all()
    return replace(parts, given=_called(given))


def _called(given: Given) -> dict[str, str]:
    """See `Parts.given`."""
    found = {
        name: called(getattr(given, name)) for name in ("task", "guide", "reward") if name in given.sections
    }
    return found | ({"test": given.task.source("test")} if isinstance(given.task, MemoryTask) else {})


@dataclass(frozen=True)
class _Data:
    task: PromptedTask
    train: Prompted
    metrics: Mapping[str, Metric]


def _data(config: Config, given: Given) -> _Data:
    """The task and the metrics, held against each other."""
    task = given.task
    if task is None:
        assert config.task is not None, "checked with the configuration"
        task = build_task(config.task.name, config.task.options)
    prompted = PromptedTask(task, partial(policy_template, config, given.policy))
    train = load_split(prompted, "train")
    assert isinstance(train, Prompted), "what such a task loads"
    metrics = build_metrics(config.evaluation.metrics)
    rewards = checks.named_rewards(config) if given.reward is None else single_rewards(given.reward)
    checks.require(checks.broken_by_data(config, checks.Found(prompted, train, metrics, rewards)))
    return _Data(prompted, train, metrics)


def _assembled(config: Config, data: _Data, models: Models, given: Given, judge: Reward | None) -> Parts:
    policy, rollout, rows = models.policy, config.rollout, config.algorithm.rows
    # Before the first episode is paid for, not in the middle of the first update.
    # A policy is measured without its guide too.
    rows = rows if given.guide is not None else ()
    scorer = scoring_guide(given.guide, policy) if any(row.distills for row in rows) else None
    text_scorer = text_scoring_guide(given.guide) if any(row.reads_guide_scores for row in rows) else None
    critics = build_critics(config, models)
    room = sum(rollout.room(config.algorithm))
    timeout = config.training.process_timeout
    sampler = build_sampler(config.sampler, policy, "policy", rollout.max_batch_tokens, room, timeout)
    state = TrainerState(max_steps=config.training.updates)
    assessor = Assessor(
        policy,
        models.reference,
        critics,
        given.reward,
        rollout.sampling,
        rollout.max_batch_tokens,
        config.reward.scale if config.reward is not None else Scale(),
        state,
        config.sampler.importance_bound,
        text_scorer,
    )
    updater = Updater(
        policy,
        critics,
        rollout.sampling,
        config.update,
        config.seed,
        scorer,
        config.training.updates,
        given.optimizer,
        given.scheduler,
    )
    collector, measured = _collectors(config, models, given, sampler, assessor.rewards)
    evaluator = Evaluator(
        measured,
        models.measured_against,
        models.judge,
        given.reward,
        judge,
        data.metrics,
        state,
        config.evaluation.beams,
    )
    return Parts(data.task, data.train, policy, collector, assessor, updater, evaluator)


def _collectors(
    config: Config, models: Models, given: Given, sampler: Sampler, rewards: Rewards
) -> tuple[Collector, Collector]:
    """The one that training collects with, and the one that evaluation does."""
    policy, rollout, guide, dialogue = models.policy, config.rollout, given.guide, None
    if given.environment is not None:
        turns = (config.environment or EnvironmentConfig()).turns
        dialogue = Dialogue(given.environment, turns, policy, rollout.max_response_tokens)
    candidates = config.guide.candidates if config.guide is not None else 1
    seed, start = config.seed, models.reference
    trains = Collector(policy, guide, rollout, seed, sampler, candidates, rewards, start, dialogue)
    # Evaluation draws from a fixed seed: policies of all seeds are compared under the same noise.
    seed = seeding.derive(0, "evaluation")
    return trains, Collector(policy, guide, rollout, seed, sampler, dialogue=dialogue)
