"""Building what a run is made of from its configuration, cheap checks before models load."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from transformers import TrainerState

from rlgf import checks, distributed, seeding
from rlgf.chat import ChatTemplate
from rlgf.config import Config
from rlgf.evaluation.evaluator import Evaluator
from rlgf.finite import require_finite_weights
from rlgf.guides import (
    Guide,
    GuideConfig,
    LocalGuideConfig,
    RemoteGuide,
    build_guide,
    guide_models,
    guide_template,
    scoring_guide,
)
from rlgf.learning.assessor import Assessor
from rlgf.learning.updater import OptimizerFactory, Updater
from rlgf.metrics import build_metrics
from rlgf.models.critic import build_critic
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import (
    ModelConfig,
    load_language_model,
    load_tokenizer,
)
from rlgf.models.lora import Adapters
from rlgf.models.trial import check_trainable
from rlgf.rewards import Reward, RewardInput, Scale, build_reward, score
from rlgf.rewards.base import PolicyReadingReward
from rlgf.rewards.composed import single_rewards
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.plan import first_request
from rlgf.run.start import check_comparable, load_start, scratch_texts
from rlgf.tasks import Task, build_task
from rlgf.tasks.chats import Prompted, PromptedTask
from rlgf.tasks.source import CHECKED
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

    def held_out(self, split: str) -> Sequence[Sample]:
        """Samples of a split that is not trained on.

        Raises:
            UserError: the split is empty.
        """
        return checks.loaded(self.task, split)


def build_parts(
    config: Config,
    *,
    task: Task | None = None,
    reward: Reward | None = None,
    guide: Guide | None = None,
    policy: LanguageModel | None = None,
    optimizer: OptimizerFactory | None = None,
    evaluates: bool = False,
) -> Parts:
    """Build every part that the configuration names; those given here are used as they are.

    Args:
        optimizer: default: AdamW.
        evaluates: the policy is measured and not trained, so its KL is that to what its own run started from.

    Raises:
        UserError: a name is not known, data is empty, a context is too short, a model is not there, a guide
            that is learned from has no probabilities over the policy's vocabulary, a metric lacks a library or
            the held-out samples what it needs.
    """
    given = {"policy": policy, "guide": guide, "reward": reward}
    checks.require(checks.broken_parts(config, [s for s in checks.PART_RULES if given.get(s) is None]))
    if task is None:
        assert config.task is not None, "checked with the configuration"
        task = build_task(config.task.name, config.task.options)
    prompted = PromptedTask(task, partial(_policy_template, config, policy))
    train = checks.loaded(prompted, "train")
    assert isinstance(train, Prompted), "what such a task loads"
    metrics = build_metrics(config.evaluation.metrics)
    rewards = checks.named_rewards(config) if reward is None else single_rewards(reward)
    checks.require(checks.broken_by_data(config, checks.Found(prompted, train, metrics, rewards)))
    if guide is None and config.guide is not None and not guide_models(config.guide):
        guide = _asked_guide(config.guide, config.rollout, train)
    elif guide is None and config.guide is not None:
        _check_chats(guide_models(config.guide), train)
    reward, judge = _scorers(config, reward, train)
    if policy is None:
        policy = load_language_model(
            config.policy.source, scratch_texts(train) if config.policy.scratch else None
        )
    require_finite_weights("the policy", policy.model.named_parameters())
    policy, reference = _with_reference(policy, config)
    measured_against = _measured_against(config, policy, train, evaluates=evaluates) or reference
    if isinstance(reward, PolicyReadingReward):
        reward.attach(policy, config.rollout, config.seed)
    language_model = config.evaluation.language_model
    judge_model = measured_against if language_model is None else load_language_model(language_model)
    if guide is None and config.guide is not None:
        guide = build_guide(config.guide, policy.tokenizer)
    # Before the first episode is paid for, not in the middle of the first update.
    scorer = scoring_guide(guide, policy) if any(row.distills for row in config.algorithm.rows) else None
    names = {row.critic for row in config.algorithm.rows} - {None}
    critics = {
        name: build_critic(config.policy.critic, policy.model, policy.adapters, f"critic_{name}")
        for name in sorted(map(str, names))
    }
    if config.policy.scratch is None:
        # After all copies of the model are made: some keep the states of their last pass, gradients and all.
        check_trainable(policy.model)
    collector = Collector(policy, guide, config.rollout, config.seed)
    # Evaluation draws from a fixed seed: policies of all seeds are compared under the same noise.
    measured = Collector(policy, guide, config.rollout, seeding.derive(0, "evaluation"))
    budget = config.rollout.max_batch_tokens
    state = TrainerState(max_steps=config.training.updates)
    return Parts(
        task=prompted,
        train=train,
        policy=policy,
        collector=collector,
        assessor=Assessor(
            policy,
            reference,
            critics,
            reward,
            config.rollout.sampling,
            budget,
            config.reward.scale if config.reward is not None else Scale(),
            state,
        ),
        updater=Updater(
            policy,
            critics,
            config.rollout.sampling,
            config.update,
            config.seed,
            scorer,
            config.training.updates,
            optimizer,
        ),
        evaluator=Evaluator(
            measured, measured_against, judge_model, reward, judge, config.rollout, metrics, state
        ),
    )


def _asked_guide(config: GuideConfig, rollout: RolloutConfig, train: Sequence[Sample]) -> Guide:
    """A guide that loads no model; a remote one is asked once, so that a wrong address, key, model or
    context shows before models load.

    Raises:
        UserError: it cannot be had, or its answer is none.
    """
    guide = build_guide(config)
    # By one process, since a limit is one of the run: it may allow no second request.
    if isinstance(guide, RemoteGuide) and distributed.is_main():
        guide.write([first_request(rollout, train)])
    return guide


def _check_chats(guides: Sequence[LocalGuideConfig], train: Prompted) -> None:
    """Try the guides' chat templates, before any weights load and with the line that one refuses.

    Raises:
        UserError: a template refuses messages.
    """
    if not train[0].messages:
        return
    for guide in guides:
        template = guide_template(load_tokenizer(guide), guide.model)
        for number in range(min(len(train), CHECKED) if template.there else 0):
            template.prompt(train[number].messages, train.place(number))


def _policy_template(config: Config, policy: LanguageModel | None) -> ChatTemplate:
    """The chat template that makes the policy's prompts, from its tokenizer alone."""
    if policy is not None:
        return ChatTemplate(policy.tokenizer, f"the policy '{policy.model.name_or_path}'", _CHAT_MODEL)
    source = config.policy.source
    # A model from scratch has yet to train a tokenizer, and that without a template.
    tokenizer = load_tokenizer(source) if isinstance(source, ModelConfig) else None
    name = f"'{source.model}'" if isinstance(source, ModelConfig) else "from scratch"
    return ChatTemplate(tokenizer, f"the policy {name}", _CHAT_MODEL)


_CHAT_MODEL = "set the option 'chat_model' of the task 'data' to a model whose template makes its prompts"


def _scorers(
    config: Config, reward: Reward | None, train: Sequence[Sample]
) -> tuple[Reward | None, Reward | None]:
    """The reward and the judge, each tried on a sample.

    Raises:
        UserError: there is no such scorer, or it does not fit the data or the algorithm.
    """
    if reward is None and config.reward is not None:
        reward = config.reward.build()
        if not any(isinstance(one, PolicyReadingReward) for one in single_rewards(reward)):
            _try(reward, train[0])
    judge = build_reward(config.evaluation.judge, {}) if config.evaluation.judge else None
    if judge is not None:
        _try(judge, train[0])
    return reward, judge


def _with_reference(policy: LanguageModel, config: Config) -> tuple[LanguageModel, LanguageModel]:
    """The policy as it is trained, and its frozen start: the same model without its adapter, or a copy."""
    if config.policy.lora is not None:
        policy = replace(policy, adapters=Adapters(policy.model, config.policy.lora))
        return policy, replace(policy, without_adapter=True)
    frozen = copy.deepcopy(policy.model).requires_grad_(False)
    return policy, LanguageModel(frozen, policy.tokenizer)


def _measured_against(
    config: Config, policy: LanguageModel, train: Sequence[Sample], *, evaluates: bool
) -> LanguageModel | None:
    """What the policy's KL is measured against, where that is not what it is now.

    Raises:
        UserError: it cannot be loaded, or has other tokens.
    """
    given = config.evaluation.reference
    if given is not None:
        found: LanguageModel | None = load_language_model(given)
    else:
        found = load_start(config, train) if evaluates else None
    if found is not None:
        check_comparable(policy, found)
    return found


def _try(reward: Reward, sample: Sample) -> None:
    """Call a reward once on a sample's own text: what it cannot take or give shows before models load.

    There are no tokens yet, so the text's bytes stand in for them.

    Raises:
        UserError: see `checked_rewards`.
    """
    text = sample.references[0] if sample.references else sample.prompt
    given = RewardInput(
        [sample.prompt],
        [text],
        {name: [value] for name, value in sample.columns.items()},
        [sample.references],
        prompt_ids=[list(sample.prompt.encode())],
        completion_ids=[list(text.encode())],
        finished=[True],
        trainer_state=TrainerState(),
        messages=[sample.messages],
    )
    # One sample alone says little of which rows a reward does not apply to.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        score(reward, given)
