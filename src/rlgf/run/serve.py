"""The sampler of a recipe's policy in a process of its own, for runs of that recipe."""

from __future__ import annotations

from dataclasses import replace

from rlgf import checks
from rlgf.config import Config
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import load_language_model
from rlgf.models.lora import Adapters
from rlgf.models.samplers import EngineConfig, VLLMSampler, build_sampler
from rlgf.models.samplers.desk import Desk
from rlgf.models.samplers.wire import described
from rlgf.run.start import scratch_texts
from rlgf.tasks import build_task, load_split


def policy_desk(config: Config) -> Desk:
    """The engine that the recipe names, with its policy, whose weights the run will bring.

    Raises:
        UserError: there is no such model, or the engine cannot run it.
    """
    # Here there is the policy alone.
    sampler_here = config.sampler.model_copy(update={"server": None})
    config = config.model_copy(update={"sampler": sampler_here, "guide": None})
    checks.require(checks.broken_parts(config, ["policy", "sampler"]))
    policy = _policy(config)
    rollout, engine = config.rollout, config.sampler.engine
    room = sum(rollout.room(config.algorithm))
    if engine == "vllm":
        # The engine has the GPU; this copy is what weights come into.
        policy.model.to("cpu")  # type: ignore[arg-type]  # the stub knows strings alone
    # Its weights are not trained here: they come, and then vLLM is told.
    settings = EngineConfig(engine=engine, cache_gib=config.sampler.cache_gib)
    sampler = build_sampler(settings, policy, "policy", rollout.max_batch_tokens, room)
    dtype = sampler.dtype if isinstance(sampler, VLLMSampler) else policy.model.dtype
    return Desk(policy, sampler, described(policy, engine, dtype, room))


def _policy(config: Config) -> LanguageModel:
    texts = None
    if config.policy.scratch is not None:
        assert config.task is not None, "checked with the configuration"
        texts = scratch_texts(load_split(build_task(config.task.name, config.task.options), "train"))
    policy = load_language_model(config.policy.source, texts)
    if config.policy.lora is None:
        return policy
    return replace(policy, adapters=Adapters(policy.model, config.policy.lora))
