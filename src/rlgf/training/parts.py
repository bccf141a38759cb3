"""Building what a run is made of from its configuration, cheap checks before models load."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from rlgf import seeding
from rlgf.config import Config
from rlgf.errors import UserError
from rlgf.guides import Guide, RemoteGuide, Request, build_guide, guide_models, http_configs, scoring_guide
from rlgf.guides.http import BudgetConfig
from rlgf.models.critic import build_critic
from rlgf.models.loading import LanguageModel, ModelConfig, context_length, load_language_model
from rlgf.models.scratch import ScratchConfig
from rlgf.rewards import Reward, build_reward
from rlgf.rollout.collector import Collector, RolloutConfig
from rlgf.tasks import Task, build_task
from rlgf.training import processes
from rlgf.training.evaluation import Evaluator
from rlgf.training.experience import Assessor
from rlgf.training.update import Updater
from rlgf.types import Sample


@dataclass
class Parts:
    """What a trainer works with."""

    task: Task
    train: Sequence[Sample]
    policy: LanguageModel
    collector: Collector
    assessor: Assessor
    updater: Updater
    evaluator: Evaluator

    def held_out(self, split: str) -> Sequence[Sample]:
        """Samples of a split that is not trained on.

        Raises:
            UserError: the split is empty.
        """
        return _loaded(self.task, split)


def build_parts(
    config: Config,
    *,
    task: Task | None = None,
    reward: Reward | None = None,
    guide: Guide | None = None,
    policy: LanguageModel | None = None,
) -> Parts:
    """Build every part that the configuration names; those given here are used as they are.

    Raises:
        UserError: a name is not known, data is empty, a context is too short, a model is not there, a guide
            that is learned from has no probabilities over the policy's vocabulary.
    """
    if processes.count() > 1 and any(b.limited for b in _budgets(config)):
        raise UserError(
            "'guide.budget' is kept by one process alone: start one process, or set a limit at the provider."
        )
    if policy is None:
        _check_context("policy", config.policy.source, config.rollout)
    if guide is None and config.guide is not None:
        for model in guide_models(config.guide):
            _check_context("guide", model, config.rollout)
    task = task or build_task(config.task.name, config.task.options)
    train = _loaded(task, "train")
    if any(row.from_pairs for row in config.algorithm.rows) and train[0].rejected is None:
        raise UserError(
            f"algorithm '{config.algorithm.name}' learns from pairs, and the task's samples have no rejected text: "
            "use the task 'data' with the options 'reference_field: chosen' and 'rejected_field: rejected'."
        )
    if guide is None and config.guide is not None and not guide_models(config.guide):
        guide = build_guide(config.guide)
        if isinstance(guide, RemoteGuide):
            # One real request: a wrong address, key, model or context shows before models load.
            prompt = max((sample.prompt for sample in itertools.islice(train, 256)), key=len)
            guide.write([Request(prompt, config.rollout.max_response_tokens, seed=0)])
    if reward is None and config.reward is not None:
        reward = build_reward(config.reward.name, config.reward.options)
    judge_name = config.evaluation.judge
    judge = build_reward(judge_name, {}) if judge_name else None
    if policy is None:
        texts = [s.prompt + "".join(s.references[:1]) for s in train] if config.policy.scratch else None
        policy = load_language_model(config.policy.source, texts)
    reference = LanguageModel(copy.deepcopy(policy.model).requires_grad_(False), policy.tokenizer)
    language_model = config.evaluation.language_model
    judge_model = reference if language_model is None else load_language_model(language_model)
    if guide is None and config.guide is not None:
        guide = build_guide(config.guide, policy.tokenizer)
    # Before the first episode is paid for, not in the middle of the first update.
    scorer = scoring_guide(guide) if any(row.distills for row in config.algorithm.rows) else None
    names = {row.critic for row in config.algorithm.rows} - {None}
    critics = {name: build_critic(config.policy.critic, policy.model) for name in sorted(map(str, names))}
    collector = Collector(policy, guide, config.rollout, config.seed)
    # Evaluation draws from a fixed seed: policies of all seeds are compared under the same noise.
    measured = Collector(policy, guide, config.rollout, seeding.derive(0, "evaluation"))
    budget = config.rollout.max_batch_tokens
    return Parts(
        task=task,
        train=train,
        policy=policy,
        collector=collector,
        assessor=Assessor(
            policy, reference, critics, reward, config.rollout.sampling, config.training.gamma, budget
        ),
        updater=Updater(policy, critics, config.rollout.sampling, config.update, config.seed, scorer),
        evaluator=Evaluator(measured, reference, judge_model, reward, judge, config.rollout),
    )


def _budgets(config: Config) -> list[BudgetConfig]:
    return [server.budget for server in http_configs(config.guide)] if config.guide is not None else []


def _check_context(who: str, model: ModelConfig | ScratchConfig, config: RolloutConfig) -> None:
    """Refuse prompts with responses that a model cannot hold, before any weights load.

    Raises:
        UserError: names the model, its context and what would fit.
    """
    length = context_length(model)
    needed = config.max_prompt_tokens + config.max_response_tokens
    if length is not None and needed > length:
        raise UserError(
            f"'rollout.max_prompt_tokens' {config.max_prompt_tokens} and 'rollout.max_response_tokens' "
            f"{config.max_response_tokens} make {needed} tokens, and the {who}'s context holds {length}: "
            "lower one of them."
        )


def _loaded(task: Task, split: str) -> Sequence[Sample]:
    samples = task.load(split)
    if len(samples) == 0:
        raise UserError(f"the task's split '{split}' is empty: it needs at least one sample.")
    return samples
