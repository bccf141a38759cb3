"""SARI against published values and a slow computation."""

from __future__ import annotations

import random

import pytest
from outputs import metric


def test_sari_has_the_published_values() -> None:
    """The three examples of the authors' code (Xu et al. 2016, SARI.py)."""
    source = "About 95 species are currently accepted ."
    references = [
        "About 95 species are currently known .",
        "About 95 species are now accepted .",
        "95 species are now accepted .",
    ]
    texts = [
        "About 95 you now get in .",
        "About 95 species are now agreed .",
        "About 95 species are currently agreed .",
    ]
    found = metric("sari")([source] * 3, texts, [references] * 3)["sari"]
    assert found == pytest.approx([0.2682782411698074, 0.5889995423074248, 0.5071608864657479], abs=1e-12)


def test_sari_equals_a_slow_computation() -> None:
    """Over lists of words, one n-gram at a time, with counts as fractions of the references."""

    def count(text: str, gram: list[str]) -> int:
        words = text.split()
        return sum(words[i : i + len(gram)] == gram for i in range(len(words) - len(gram) + 1))

    def grams(text: str, n: int) -> list[list[str]]:
        words = text.split()
        return [list(g) for g in sorted({tuple(words[i : i + n]) for i in range(len(words) - n + 1)})]

    def mean(values: list[float]) -> float:
        return sum(values) / len(values) if values else 0.0

    def f1(p: float, r: float) -> float:
        return 0.0 if p + r == 0 else 2 * p * r / (p + r)

    def slow(source: str, text: str, refs: list[str]) -> float:
        parts = []
        for n in (1, 2, 3, 4):
            share = {
                tuple(g): mean([count(ref, g) for ref in refs])
                for t in (source, text, *refs)
                for g in grams(t, n)
            }
            old, new = grams(source, n), grams(text, n)
            gold = [list(g) for g, value in share.items() if value > 0]
            keep = lambda g: min(count(source, g), count(text, g))  # noqa: E731
            good = [min(keep(g), share[tuple(g)]) for g in old]
            keeping = mean([k / keep(g) for g, k in zip(old, good, strict=True) if keep(g)])
            wanted = [min(count(source, g), share[tuple(g)]) for g in old]
            kept = mean([k / w for k, w in zip(good, wanted, strict=True) if w])
            add = [g for g in new if not count(source, g)]
            to_add = [g for g in gold if not count(source, g)]
            gone = [(g, max(count(source, g) - count(text, g), 0)) for g in old]
            dropped = mean([max(d - share[tuple(g)], 0) / d for g, d in gone if d])
            parts += [f1(keeping, kept), dropped]
            parts.append(f1(mean([float(g in gold) for g in add]), mean([float(g in add) for g in to_add])))
        return mean(parts)

    draw = random.Random(3)
    for _ in range(20):
        source, text, *refs = (" ".join(draw.choices("abcde", k=draw.randint(1, 9))) for _ in range(4))
        assert metric("sari")([source], [text], [refs])["sari"] == pytest.approx([slow(source, text, refs)])
