"""Metrics of the words alone, and SARI, which no installable library has. Words are what stands between spaces, in lower case."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from rlgf.metrics.base import References, Values

SEGMENT = 50
"""Words of a segment of `msttr`, as is usual."""


def distinct(completions: Sequence[str]) -> Values:
    """Distinct n-grams over all n-grams of all completions, n = 1, 2, 3.

    After Li et al., arXiv 1510.03055, who divide by the number of tokens and stop at n = 2.
    """
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


Counts = Counter[tuple[str, ...]]


def sari(prompts: Sequence[str], completions: Sequence[str], references: References) -> Values:
    """SARI of simplifications, 0 to 1 (Xu et al. 2016, "Optimizing Statistical Machine Translation for Text
    Simplification", section 4), with the prompt as the text that is simplified.

    For n-grams of 1 to 4 words: F1 of the additions, F1 of the kept words, precision of the deletions,
    each against what the references add, keep and delete, and the mean of all three over all n. F1 is
    taken for each n, as in the authors' code; the paper's formula takes it of mean precision and recall.
    Words are what stands between spaces, in lower case.
    """
    rows = zip(prompts, completions, references, strict=True)
    return {"sari": [_sari(*row) for row in rows]}


sari.needs = ("references",)  # type: ignore[attr-defined]  # read by `check_needs`


def _sari(source: str, text: str, references: Sequence[str]) -> float:
    total = 0.0
    for n in (1, 2, 3, 4):
        # Source and text weigh as much as all references together.
        before, after = (
            Counter({gram: count * len(references) for gram, count in _counts(given, n).items()})
            for given in (source, text)
        )
        gold = sum((_counts(reference, n) for reference in references), Counts())
        added = set(after) - set(before)
        right, wanted = added & set(gold), set(gold) - set(before)
        total += _f1(_share(len(right), len(added)), _share(len(right), len(wanted)))
        kept, to_keep = before & after, before & gold
        total += _f1(_mean_share(kept & gold, kept), _mean_share(kept & gold, to_keep))
        deleted = before - after
        total += _mean_share(deleted - gold, deleted)
    return total / 12


def _counts(text: str, n: int) -> Counts:
    return Counter(ngrams(text.lower().split(), n))


def _mean_share(part: Counts, whole: Counts) -> float:
    """How much of each n-gram's count in ``whole`` is in ``part``, averaged over the n-grams of ``whole``."""
    return sum(part[gram] / count for gram, count in whole.items()) / len(whole) if whole else 0.0


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
