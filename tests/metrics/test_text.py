"""Metrics that need nothing but the texts, against counts by hand and slow computations."""

from __future__ import annotations

import math
import random

import pytest
from outputs import of

from rlgf.metrics.text import distinct, repetition, words


def test_distinct_counts_ngrams_of_all_texts() -> None:
    """the cat the cat | a cat: words the, cat, a of 6; pairs the-cat, cat-the, a-cat of 4; 2 triples."""
    found = distinct(["The cat  the\ncat", "a cat"])
    assert list(found) == ["distinct_1", "distinct_2", "distinct_3"]
    assert list(found.values()) == pytest.approx([3 / 6, 3 / 4, 1])
    assert list(distinct(["", "word"]).values()) == [1.0, 0.0, 0.0]
    assert list(distinct([""]).values()) == [0.0, 0.0, 0.0]


def test_repetition_counts_trigrams_that_stood_before() -> None:
    """a b c a b c holds abc, bca, cab and abc again; x x x x x holds one trigram three times."""
    found = repetition(["a b c A b c", "x x x x x", "a b c d", "a b", ""])
    assert found == {"repetition": [pytest.approx(1 / 4), pytest.approx(2 / 3), 0.0, 0.0, 0.0]}


def test_words_counts_what_stands_between_spaces() -> None:
    assert words(["one  two\nthree,four", ""]) == {"words": [3.0, 0.0]}


def test_msttr_and_entropy_equal_slow_computations() -> None:
    draw = random.Random(0)
    texts = [" ".join(draw.choices("abcdefgh", k=draw.randint(0, 30))) for _ in range(20)]
    words = " ".join(texts).split()
    segments = [words[50 * i : 50 * i + 50] for i in range(len(words) // 50)]
    assert len(words) % 50, "something is left over"
    assert of("msttr", texts, [])["msttr"] == pytest.approx(
        sum(len(set(s)) / 50 for s in segments) / len(segments)
    )
    assert of("msttr", ["a b c"], []) == {}
    found = of("entropy", texts, [])
    for n in (1, 2, 3):
        grams = [" ".join(t.split()[i : i + n]) for t in texts for i in range(len(t.split()) - n + 1)]
        slow = -sum(math.log2(grams.count(gram) / len(grams)) for gram in grams) / len(grams)
        assert found[f"entropy_{n}"] == pytest.approx(slow)
    assert list(of("entropy", ["a b A b"], []).values()) == pytest.approx(
        [1, -(2 / 3) * math.log2(2 / 3) + math.log2(3) / 3, 1]
    )
    assert list(of("entropy", [""], []).values()) == [0, 0, 0]
