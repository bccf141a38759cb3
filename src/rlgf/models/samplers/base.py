"""The contract of a sampler, and the one that is always there: the model itself, one step at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from rlgf import seeding
from rlgf.models.abilities import computes_in_half
from rlgf.models.generate import Continuation, sample_continuations
from rlgf.models.language_model import LanguageModel
from rlgf.models.sampling import Sampling


@dataclass(frozen=True)
class Beginning:
    """What a model goes on from, in its own tokens."""

    prompt: Sequence[int]
    """An encoder-decoder model's encoder reads it; of any other model it is where the text begins."""
    written: Sequence[int]
    """What stands after the prompt already."""
    limit: int
    """How many tokens may follow, at least 1."""
    seed: int
    """All that is drawn comes from it."""
    position: int = 0
    """Place in the response of the first token that follows, which the minimum length looks at."""


@runtime_checkable
class Sampler(Protocol):
    """Writes with one model, whose weights may change between two calls."""

    largest_gap: float | None
    """None where its log-probabilities are those of the model's own passes. If not, whoever learns from them computes
    them again, and refuses those that differ by more than this on average, in nats per token."""

    def write(
        self, beginnings: Sequence[Beginning], sampling: Sampling, *, keep_sets: bool = False
    ) -> list[Continuation]:
        """Go on with each text, in their order, until a token that ends it or its limit.

        The tokens are drawn from ``sampling`` of the model as it is now, and each text's from its own seed alone:
        they do not depend on which others are written with it, but where rounding decides. Log-probabilities are
        those of the distribution that was drawn from.

        Args:
            keep_sets: whether to return what top-k and top-p left of the vocabulary at each token.
        """


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
