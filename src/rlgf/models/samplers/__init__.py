"""Samplers: where a model's tokens come from."""

from __future__ import annotations

from rlgf.models.language_model import LanguageModel
from rlgf.models.samplers.base import Beginning, Sampler
from rlgf.models.samplers.builtin import BuiltinSampler
from rlgf.models.samplers.config import EngineConfig, SamplerConfig
from rlgf.models.samplers.vllm import VLLMSampler

__all__ = [
    "Beginning",
    "BuiltinSampler",
    "EngineConfig",
    "Sampler",
    "SamplerConfig",
    "VLLMSampler",
    "build_sampler",
]


def build_sampler(
    config: EngineConfig,
    language_model: LanguageModel,
    purpose: str,
    max_batch_tokens: int,
    max_tokens: int | None = None,
) -> Sampler:
    """The sampler that a recipe describes.

    Args:
        purpose: what is written: ``policy``, whose weights change, or ``guide``.
        max_batch_tokens: rows times positions of one decoding batch; vLLM makes its own.
        max_tokens: of a prompt with its response; default: as many as the model can read.

    Raises:
        UserError: vLLM cannot run the model.
    """
    if config.engine == "builtin":
        return BuiltinSampler(language_model, purpose, max_batch_tokens)
    if isinstance(config, SamplerConfig):
        return VLLMSampler(
            language_model,
            purpose,
            trained=True,
            largest_gap=config.largest_gap,
            cache_gib=config.cache_gib,
            max_tokens=max_tokens,
        )
    return VLLMSampler(
        language_model, purpose, trained=False, cache_gib=config.cache_gib, max_tokens=max_tokens
    )
