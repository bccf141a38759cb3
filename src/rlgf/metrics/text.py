"""Metrics that need nothing but the texts. Words are what stands between spaces, in lower case."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from rlgf.metrics.base import Values

SEGMENT = 50
"""Words of a segment of `msttr`, as is usual."""


def distinct(completions: Sequence[str]) -> Values:
    """Distinct n-grams over all n-grams of all completions, n = 1, 2, 3 (Li et al., arXiv 1510.03055)."""
    return {f"distinct_{n}": _distinct_share(_all_ngrams(completions, n)) for n in (1, 2, 3)}


def repetition(completions: Sequence[str]) -> Values:
    """The share of a text's word trigrams that stood in it before; 0 where there are none."""
    trigrams = [ngrams(_words(completion), 3) for completion in completions]
    return {"repetition": [1 - _distinct_share(grams) if grams else 0.0 for grams in trigrams]}


def words(completions: Sequence[str]) -> Values:
    """Length in words."""
    return {"words": [float(len(completion.split())) for completion in completions]}


def msttr(completions: Sequence[str]) -> Values:
    """Mean segmental type-token ratio (Johnson 1944): distinct words over words, averaged over segments.

    The completions are read one after another and cut into segments of 50 words; the rest is
    dropped. Nothing is reported of fewer than 50 words.
    """
    read = [word for completion in completions for word in _words(completion)]
    segments = [read[i : i + SEGMENT] for i in range(0, len(read) - SEGMENT + 1, SEGMENT)]
    if not segments:
        return {}
    return {"msttr": sum(len(set(segment)) for segment in segments) / (SEGMENT * len(segments))}


def entropy(completions: Sequence[str]) -> Values:
    """Shannon entropy of the n-grams of all completions in bits, ``-sum p log2 p``, n = 1, 2, 3."""
    found = {}
    for n in (1, 2, 3):
        grams = _all_ngrams(completions, n)
        shares = [count / len(grams) for count in Counter(grams).values()]
        found[f"entropy_{n}"] = 0.0 - sum(share * math.log2(share) for share in shares)
    return found


def _words(text: str) -> list[str]:
    return text.lower().split()


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n words, in their order."""
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _all_ngrams(texts: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """N-grams that do not reach over the end of a text."""
    return [gram for text in texts for gram in ngrams(_words(text), n)]


def _distinct_share(grams: Sequence[tuple[str, ...]]) -> float:
    return len(set(grams)) / len(grams) if grams else 0.0
