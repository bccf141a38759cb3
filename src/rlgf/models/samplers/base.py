"""The contract of a sampler: one model, and the tokens that it writes after beginnings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rlgf.models.generate import Continuation
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
        ...


@runtime_checkable
class FollowingSampler(Sampler, Protocol):
    """One that writes with weights that it has to be brought, for all processes of a run."""

    def follow(self) -> None:
        """Bring it the weights as they are now; called by all processes together, before each writes its share."""
        ...


def bring_weights(sampler: Sampler) -> None:
    """Whatever the sampler is, it writes with the weights as they are now; called by all processes together."""
    if isinstance(sampler, FollowingSampler):
        sampler.follow()
