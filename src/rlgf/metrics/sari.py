"""SARI, for which no maintained library can be installed from a package index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rlgf.metrics.base import References, Values
from rlgf.metrics.text import ngrams

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
