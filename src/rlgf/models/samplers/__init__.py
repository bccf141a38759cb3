"""Samplers: where a model's tokens come from."""

from __future__ import annotations

from rlgf.models.language_model import LanguageModel
from rlgf.models.samplers.base import Beginning, BuiltinSampler, Sampler
from rlgf.models.samplers.beam import BeamSampler
from rlgf.models.samplers.config import EngineConfig, SamplerConfig
from rlgf.models.samplers.served import ServedSampler
from rlgf.models.samplers.vllm import VLLMSampler

__all__ = [
    "BeamSampler",
    "Beginning",
    "BuiltinSampler",
    "EngineConfig",
    "Sampler",
    "SamplerConfig",
    "ServedSampler",
    "VLLMSampler",
    "bring_weights",
    "build_sampler",
]


def build_sampler(
    config: EngineConfig,
    language_model: LanguageModel,
    purpose: str,
    max_batch_tokens: int,
    max_tokens: int | None = None,
    seconds: float = 1800.0,
) -> Sampler:
    """The sampler that a recipe describes.

    Args:
        purpose: what is written: ``policy``, whose weights change, or ``guide``.
        max_batch_tokens: rows times positions of one decoding batch; vLLM makes its own.
        max_tokens: of a prompt with its response; default: as many as the model can read.
        seconds: how long to wait for a server.

    Raises:
        UserError: vLLM cannot run the model, or a server does not answer or serves another.
    """
    if isinstance(config, SamplerConfig) and config.server is not None:
        assert max_tokens is not None, "a policy's texts have a limit"
        return ServedSampler(language_model, config, max_tokens, seconds)
    if config.engine == "builtin":
        return BuiltinSampler(language_model, purpose, max_batch_tokens)
    gap = {"largest_gap": config.largest_gap} if isinstance(config, SamplerConfig) else {}
    return VLLMSampler(
        language_model,
        purpose,
        trained=isinstance(config, SamplerConfig),
        cache_gib=config.cache_gib,
        max_tokens=max_tokens,
        **gap,
    )


def bring_weights(sampler: Sampler) -> None:
    """Whatever the sampler is, it writes with the weights as they are now; called by all processes together, before each
    writes its share."""
    if isinstance(sampler, ServedSampler):
        sampler.follow()
