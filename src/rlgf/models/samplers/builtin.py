"""The sampler that is always there: the model itself, one step at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from rlgf import seeding
from rlgf.models.generate import Continuation, sample_continuations
from rlgf.models.language_model import LanguageModel
from rlgf.models.precision import computes_in_half
from rlgf.models.samplers.base import Beginning
from rlgf.models.sampling import Sampling


class BuiltinSampler:
    """Samples with the trained model's own passes, so its log-probabilities are the trainer's; in half precision they
    are rounded otherwise, token by token, by any amount."""

    def __init__(self, language_model: LanguageModel, purpose: str, max_batch_tokens: int = 32_768) -> None:
        """
        Args:
            purpose: what is written, such as ``policy``: with one seed another purpose draws other numbers.
            max_batch_tokens: rows times positions of one decoding batch.
        """
        model = language_model.model
        rounded = computes_in_half(model.device) or model.dtype != torch.float32
        self.largest_gap: float | None = math.inf if rounded else None
        self.language_model = language_model
        self.purpose = purpose
        self.max_batch_tokens = max_batch_tokens

    def write(
        self, beginnings: Sequence[Beginning], sampling: Sampling, *, keep_sets: bool = False
    ) -> list[Continuation]:
        """See `Sampler.write`."""
        limits = torch.tensor([one.limit for one in beginnings])
        uniforms = [seeding.uniforms(int(limits.max()), one.seed, self.purpose) for one in beginnings]
        prefixes, prompts = self.language_model.prefixes(
            [one.prompt for one in beginnings], [one.written for one in beginnings]
        )
        return sample_continuations(
            self.language_model.model,
            prefixes,
            limits,
            torch.stack(uniforms),
            sampling,
            self.language_model.end_ids,
            prompts=prompts,
            first_positions=torch.tensor([one.position for one in beginnings]),
            max_batch_tokens=self.max_batch_tokens,
            keep_sets=keep_sets,
        )
