"""The models of a run: the policy, its frozen start, its critics, and what the policy is measured against."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from rlgf import distributed
from rlgf.config import Config
from rlgf.distributed import device
from rlgf.errors import UserError, one_line
from rlgf.finite import require_finite_weights
from rlgf.models import checkpointing, launcher, sharding
from rlgf.models.critic import Critic, build_critic
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import load_language_model
from rlgf.models.lora import Adapters
from rlgf.models.trial import check_trainable
from rlgf.run.start import check_comparable, load_start, scratch_texts
from rlgf.tasks.chats import Prompted


@dataclass(frozen=True)
class Models:
    """Those of a run but for critics and guides."""

    policy: LanguageModel
    reference: LanguageModel
    """Its frozen start."""
    measured_against: LanguageModel
    judge: LanguageModel
    """Whose perplexity of the outputs is measured."""
    in_main: bool
    """Whether the main process alone has the weights of policy and reference, which are shared out later."""
    evaluates: bool
    """Whether nothing is trained."""


def load_policy(
    config: Config, given: LanguageModel | None, train: Prompted, *, evaluates: bool, reward_reads: bool
) -> Models:
    """The policy and its frozen start, which stands for the others too.

    Processes that will share their weights load them in the main one alone, unless the reward of each reads the whole
    policy (``reward_reads``).

    Raises:
        UserError: it cannot be loaded, or has weights that are not finite, or is to be trained and all are frozen or in
            half precision.
    """
    # A model's own code need not be there in another process, to which the model would come as a pickle.
    in_main = given is None and launcher.wanted() and not (config.policy.trust_remote_code or reward_reads)

    def build() -> tuple[LanguageModel, LanguageModel]:
        policy = given
        if policy is not None:
            _put_on_device(policy.model)
        else:
            texts = scratch_texts(train) if config.policy.scratch else None
            # Layer by layer the weights go to the devices that share them, of which none has to have room for all.
            policy = load_language_model(
                config.policy.source, texts, torch.device("cpu") if in_main else None
            )
        require_finite_weights("the policy", policy.model.named_parameters())
        policy, reference = _with_reference(policy, config)
        if not evaluates:
            _require_trainable(policy)
            _require_savable(policy)
        return policy, reference

    if in_main:
        policy, reference = sharding.from_main(build, lambda pair: [one.model for one in pair])
    else:
        with distributed.main_first():
            policy, reference = build()
    return Models(policy, reference, reference, reference, in_main, evaluates)


def load_others(config: Config, begun: Models, train: Prompted) -> Models:
    """The models of a run, of which policy and frozen start are there.

    Raises:
        UserError: one cannot be loaded, or has other tokens than the policy.
    """
    given, judge = config.evaluation.reference, config.evaluation.language_model
    against = None
    if given is not None:
        against = load_language_model(given)
    elif begun.evaluates:
        against = load_start(config, train)
    if against is not None:
        check_comparable(begun.policy, against)
    against = against or begun.reference
    return replace(
        begun, measured_against=against, judge=against if judge is None else load_language_model(judge)
    )


def build_critics(config: Config, models: Models) -> dict[str, Critic]:
    """One for each author whose value a row of the algorithm reads; all that is trained is then tried and shared."""
    policy = models.policy
    if config.update.gradient_checkpointing:
        checkpointing.enable(policy.model, policy.adapters)
    names = sorted({row.critic for row in config.algorithm.rows if row.critic is not None})

    def build() -> dict[str, Critic]:
        return {
            name: build_critic(config.policy.critic, policy.model, policy.adapters, f"critic_{name}")
            for name in names
        }

    critics = sharding.from_main(build, lambda built: [*built.values()]) if models.in_main else build()
    trains = not models.evaluates and config.policy.scratch is None
    if trains and not sharding.is_hollow(policy.model):
        # After all copies of the model are made: some keep the states of their last pass, gradients and all.
        check_trainable(policy.model)
    if launcher.wanted():
        sharding.shard_all(
            {"the policy": policy.model, "the reference": models.reference.model, **critics},
            from_main=models.in_main,
        )
    return critics


def _put_on_device(model: PreTrainedModel) -> None:
    """Let a model that was given be where the run computes; quantized weights stay where they were loaded. Raises a
    `UserError` where it lies on several devices."""
    if len(places := {str(weight.device) for weight in model.parameters()}) > 1:
        raise UserError(
            f"'policy' lies on several devices ({', '.join(sorted(places))}), and a run trains on one: load it without "
            "'device_map'."
        )
    if getattr(model, "hf_quantizer", None) is None:
        model.to(device())  # type: ignore[arg-type]  # the stub knows strings alone


def _require_trainable(policy: LanguageModel) -> None:
    """Raises a `UserError` where all weights are frozen, or some that are to be trained are in half precision."""
    if not policy.trained:
        raise UserError(
            "'policy' has no weights that learn, since all are frozen: call policy.requires_grad_(True), or pass "
            "evaluates=True to measure it and not train it."
        )
    coarse = next((weight.dtype for weight in policy.trained if torch.finfo(weight.dtype).bits < 32), None)
    if coarse is not None:
        raise UserError(
            f"'policy' has weights in {str(coarse).removeprefix('torch.')}, whose rounding swallows small updates: give "
            "policy.float(), or load it with dtype='float32'; to measure it and not train it, pass evaluates=True."
        )


def _require_savable(policy: LanguageModel) -> None:
    """Raises a `UserError` where `transformers` would refuse to save a policy with the generation configuration that it
    has, which it does of one that was changed in Python and warns of something: at the first checkpoint it is too late."""
    if policy.adapters is not None or not policy.model.can_generate():
        return
    try:
        with tempfile.TemporaryDirectory() as folder:
            policy.model.generation_config.save_pretrained(folder)
    except (AttributeError, ValueError) as error:
        reason = str(error).partition(". ")[0]
        raise UserError(
            f"'policy' has a generation_config that transformers does not save ({one_line(reason, 300)}): mend it before "
            "the run, as policy.generation_config = GenerationConfig(eos_token_id=...) does."
        ) from error


def _with_reference(policy: LanguageModel, config: Config) -> tuple[LanguageModel, LanguageModel]:
    """The policy as it is trained, and its frozen start: the same model without its adapter, or a copy."""
    if config.policy.lora is not None:
        policy = replace(policy, adapters=Adapters(policy.model, config.policy.lora))
        return policy, replace(policy, without_adapter=True)
    frozen = copy.deepcopy(policy.model).requires_grad_(False)
    return policy, LanguageModel(frozen, policy.tokenizer)
