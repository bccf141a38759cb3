"""Metrics that need nothing but the texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

References = Sequence[Sequence[str]]


@runtime_checkable
class Metric(Protocol):
    """A metric. A list holds one value a text, and its mean is the total; a number is a total alone."""

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], references: References
    ) -> Mapping[str, list[float] | float]: ...


def distinct(
    prompts: Sequence[str], completions: Sequence[str], references: References
) -> Mapping[str, list[float] | float]:
    """Distinct n-grams over all n-grams of all completions, n = 1 and 2 (Li et al., arXiv 1510.03055).

    Words are what stands between spaces, in lower case.
    """
    texts = [completion.lower().split() for completion in completions]
    return {
        f"distinct_{n}": _distinct_share([gram for text in texts for gram in _ngrams(text, n)])
        for n in (1, 2)
    }


def repetition(
    prompts: Sequence[str], completions: Sequence[str], references: References
) -> Mapping[str, list[float] | float]:
    """The share of a text's word trigrams that stood in it before; 0 where there are none."""
    trigrams = [_ngrams(completion.lower().split(), 3) for completion in completions]
    return {"repetition": [1 - _distinct_share(grams) if grams else 0.0 for grams in trigrams]}


def words(
    prompts: Sequence[str], completions: Sequence[str], references: References
) -> Mapping[str, list[float] | float]:
    """Length in words."""
    return {"words": [float(len(completion.split())) for completion in completions]}


TEXT_METRICS: Mapping[str, Metric] = {"distinct": distinct, "repetition": repetition, "words": words}


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _distinct_share(grams: Sequence[tuple[str, ...]]) -> float:
    return len(set(grams)) / len(grams) if grams else 0.0
