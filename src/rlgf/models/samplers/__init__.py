"""Samplers: where a model's tokens come from."""

from rlgf.models.samplers.base import Beginning, Sampler
from rlgf.models.samplers.builtin import BuiltinSampler

__all__ = ["Beginning", "BuiltinSampler", "Sampler"]
