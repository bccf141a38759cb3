"""Building what a run is made of from its configuration, cheap checks before models load."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from transformers import TrainerState

from rlgf import seeding
from rlgf.chat import ChatTemplate
from rlgf.config import Config
from rlgf.errors import UserError
from rlgf.finite import require_finite_weights
from rlgf.guides import (
    Guide,
    GuideConfig,
    LocalGuideConfig,
    RemoteGuide,
    Request,
    build_guide,
    guide_models,
    guide_template,
    scoring_guide,
)
from rlgf.metrics import Metric, build_metrics
from rlgf.models.critic import build_critic
from rlgf.models.loading import (
    LanguageModel,
    ModelConfig,
    context_length,
    load_language_model,
    load_model_config,
    load_tokenizer,
)
from rlgf.models.lora import Adapters
from rlgf.models.scratch import ScratchConfig
from rlgf.models.trial import check_trainable
from rlgf.rewards import Reward, RewardInput, Scale, build_reward, score
from rlgf.rewards.base import LearnedReward, PolicyReadingReward
from rlgf.rewards.composed import single_rewards
from rlgf.rollout.collector import Collector, RolloutConfig
from rlgf.tasks import Task, build_task
from rlgf.tasks.chats import Prompted, PromptedTask
from rlgf.tasks.source import CHECKED
from rlgf.training import processes
from rlgf.training.evaluation import EvaluationConfig, Evaluator, check_samples
from rlgf.training.experience import Assessor
from rlgf.training.start import check_comparable, load_start, scratch_texts
from rlgf.training.update import Updater
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
        return _loaded(self.task, split)


def build_parts(
    config: Config,
    *,
    task: Task | None = None,
    reward: Reward | None = None,
    guide: Guide | None = None,
    policy: LanguageModel | None = None,
    evaluates: bool = False,
) -> Parts:
    """Build every part that the configuration names; those given here are used as they are.

    Args:
        evaluates: the policy is measured and not trained, so its KL is that to what its own run started from.

    Raises:
        UserError: a name is not known, data is empty, a context is too short, a model is not there, a guide
            that is learned from has no probabilities over the policy's vocabulary, a metric lacks a library or
            the held-out samples what it needs.
    """
    if policy is None:
        _check_context("policy", config.policy.source, config.rollout)
    if guide is None and config.guide is not None:
        for model in guide_models(config.guide):
            _check_context("guide", model, config.rollout)
    task = task or build_task(config.task.name, config.task.options)
    prompted = PromptedTask(task, partial(_policy_template, config, policy))
    train = _loaded(prompted, "train")
    _check_pairs(config, train)
    metrics = build_metrics(config.evaluation.metrics)
    _check_metrics(metrics, config.evaluation, prompted)
    if guide is None and config.guide is not None and not guide_models(config.guide):
        guide = _asked_guide(config.guide, config.rollout, train)
    elif guide is None and config.guide is not None:
        _check_chats(guide_models(config.guide), train)
    reward, judge = _scorers(config, reward, train)
    if policy is None:
        texts = scratch_texts(train) if config.policy.scratch else None
        policy = load_language_model(config.policy.source, texts)
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
    if isinstance(guide, RemoteGuide) and processes.is_main():
        longest = max(itertools.islice(train, 256), key=lambda sample: len(sample.prompt))
        guide.write([Request(longest.prompt, rollout.max_response_tokens, seed=0, messages=longest.messages)])
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
    source = config.policy.source
    if policy is not None:
        tokenizer = policy.tokenizer
    elif isinstance(source, ModelConfig):
        tokenizer = load_tokenizer(source)
    else:
        tokenizer = None  # a model from scratch has yet to train one, and that without a template
    name = f"'{source.model}'" if isinstance(source, ModelConfig) else "from scratch"
    remedy = "set the option 'chat_model' of the task 'data' to a model whose template makes its prompts"
    return ChatTemplate(tokenizer, f"the policy {name}", remedy)


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
    _check_reward(reward, config, train)
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


def _check_pairs(config: Config, train: Sequence[Sample]) -> None:
    """
    Raises:
        UserError: the algorithm learns from given pairs, and the data has none.
    """
    if any(row.from_pairs for row in config.algorithm.rows) and train[0].rejected is None:
        raise UserError(
            f"algorithm '{config.algorithm.name}' learns from pairs, and the task's samples have no rejected text: "
            "use the task 'data' with the options 'reference_field: chosen' and 'rejected_field: rejected'."
        )


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


def _check_reward(reward: Reward | None, config: Config, train: Sequence[Sample]) -> None:
    """Refuse a reward that the algorithm or the data cannot serve, before any weights load.

    Raises:
        UserError: in one sentence.
    """
    singles = [] if reward is None else single_rewards(reward)
    for row in config.algorithm.rows:
        if row.learned_reward and not any(isinstance(one, LearnedReward) for one in singles):
            raise UserError(
                f"algorithm '{config.algorithm.name}' needs a reward that learns beside the policy: set "
                "'reward: discriminator', or name a class of your own with 'update(rollout)', 'state_dict()' "
                "and 'load_state_dict(state)'."
            )
    for one in singles:
        if hasattr(one, "update") and not isinstance(one, LearnedReward):
            raise UserError(
                f"the reward '{type(one).__name__}' has 'update', and what it learns would be lost with the run: "
                "give it 'state_dict()' and 'load_state_dict(state)' too."
            )
        if getattr(one, "needs_references", False) and not train[0].references:
            raise UserError(
                f"the reward '{type(one).__name__}' learns from reference texts, and the first sample of "
                "'train' has none: give the task's 'reference_field', or choose another reward."
            )


def _check_metrics(metrics: Mapping[str, Metric], config: EvaluationConfig, task: PromptedTask) -> None:
    """Refuse a metric whose references or columns the task does not have, before any model loads.

    Raises:
        UserError: names the metric and the sample.
    """
    needing = {name: metric for name, metric in metrics.items() if hasattr(metric, "needs")}
    if needing:
        for split, count in (("validation", config.samples), ("test", config.test_samples)):
            check_samples(needing, _loaded(task, split)[:count], f"the task's split '{split}'")


def _check_context(who: str, model: ModelConfig | ScratchConfig, config: RolloutConfig) -> None:
    """Refuse prompts with responses that a model cannot hold, before any weights load.

    Raises:
        UserError: names the model, its context and what would fit.
    """
    prompt, response = config.max_prompt_tokens, config.max_response_tokens
    length, needed = context_length(model), prompt + response
    if length is not None and isinstance(model, ModelConfig) and load_model_config(model).is_encoder_decoder:
        # The encoder holds the prompt, and the decoder the response behind at most two tokens.
        needed = max(prompt, response + 2)
    if length is not None and needed > length:
        raise UserError(
            f"'rollout.max_prompt_tokens' {prompt} and 'rollout.max_response_tokens' {response} "
            f"make {needed} tokens, and the {who}'s context holds {length}: lower one of them."
        )


def _loaded(task: PromptedTask, split: str) -> Prompted:
    samples = task.load(split)
    if len(samples) == 0:
        raise UserError(f"the task's split '{split}' is empty: it needs at least one sample.")
    return samples
