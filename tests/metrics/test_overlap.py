"""Overlap with references, against the libraries that papers use and against published numbers."""

from __future__ import annotations

from typing import Any

import pytest
import sacrebleu
from outputs import REFERENCES, TEXTS, metric, of
from rouge_score import rouge_scorer

from rlgf.errors import UserError
from rlgf.metrics import Metric


def test_bleu_is_that_of_pycocoevalcap(tokenized: Any) -> None:
    from pycocoevalcap.bleu.bleu import Bleu

    totals, values = Bleu(4).compute_score(*tokenized, verbose=0)
    found = of("bleu", TEXTS, REFERENCES)
    for n in range(4):
        assert found[f"bleu_{n + 1}"].total == pytest.approx(totals[n], abs=1e-12)
        assert found[f"bleu_{n + 1}"].per_text == pytest.approx(values[n], abs=1e-12)
    assert 0.2 < found["bleu_4"].total < found["bleu_1"].total < 0.9


def test_meteor_is_that_of_pycocoevalcap(tokenized: Any, meteor: Metric) -> None:
    from rlgf.metrics.overlap import Meteor

    assert isinstance(meteor, Meteor)
    # The library's own call with its own tokens; a second process would take as long to start as all the rest.
    total, values = meteor._scorer.compute_score(*tokenized)
    found = meteor(TEXTS, REFERENCES)
    assert found["meteor"].total == pytest.approx(total, abs=1e-12)
    assert found["meteor"].per_text == pytest.approx(values, abs=1e-12)


def test_meteor_of_equal_sentences_is_1_and_of_nothing_shared_0(meteor: Metric) -> None:
    texts = ["A man runs in the field.", "", "x ||| y", "...", "A man runs ||| in the field."]
    found = meteor(texts, [["A man runs in the field.", "No."], ["No."], ["A dog."], ["A dog."], [texts[0]]])
    assert found["meteor"].per_text[:4] == pytest.approx([1, 0, 0, 0])
    assert 0 < found["meteor"].per_text[4] < 1, (
        "bars part the fields of the program's input, and tokens of a text"
    )


def test_a_meteor_whose_process_has_ended_says_so_and_goes() -> None:
    dead = metric("meteor")
    process = dead._scorer.meteor_p
    process.kill()
    process.wait()
    with pytest.raises(UserError, match="'meteor': its Java process has ended"):
        dead(["a"], [["b"]])
    del dead
    assert process.stdin.closed


def test_sacrebleu_is_that_of_the_library_and_its_published_example() -> None:
    longest = max(map(len, REFERENCES))
    streams = [[refs[i] if i < len(refs) else None for refs in REFERENCES] for i in range(longest)]
    found = of("sacrebleu", TEXTS, REFERENCES)
    assert found["sacrebleu"].total == pytest.approx(sacrebleu.corpus_bleu(TEXTS, streams).score, abs=1e-12)
    assert found["sacrebleu"].per_text[3] == pytest.approx(
        sacrebleu.sentence_bleu(TEXTS[3], REFERENCES[3]).score, abs=1e-12
    )
    # From its README.
    texts = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    references = [
        ["The dog bit the man.", "The dog had bit the man."],
        ["It was not unexpected.", "No one was surprised."],
        ["The man bit him first.", "The man had bitten the dog."],
    ]
    total = of("sacrebleu", texts, references)["sacrebleu"].total
    assert total == pytest.approx(48.530827009929865, abs=1e-12)


def test_rouge_is_the_best_of_the_references_and_has_the_published_examples() -> None:
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"])
    found = of("rouge", TEXTS, REFERENCES)
    for ours, name in (
        ("rouge_1", "rouge1"),
        ("rouge_2", "rouge2"),
        ("rouge_l", "rougeL"),
        ("rouge_lsum", "rougeLsum"),
    ):
        pairs = zip(TEXTS, REFERENCES, strict=True)
        best = [max(scorer.score(ref, text)[name].fmeasure for ref in refs) for text, refs in pairs]
        assert found[ours] == pytest.approx(best, abs=1e-12)
    # From that library's tests, and Lin 2004, section 3.2: recall 4/5, precision 4/10.
    found = of(
        "rouge", ["testing", "w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5"], [["testing one two"], ["w1 w2 w3 w4 w5"]]
    )
    assert found["rouge_1"][0] == pytest.approx(0.5)
    assert found["rouge_lsum"][1] == pytest.approx(2 * 0.8 * 0.4 / 1.2)


def test_self_bleu_is_the_mean_bleu_with_all_the_others() -> None:
    texts = [*TEXTS[:8], TEXTS[0]]
    slow = [
        sacrebleu.sentence_bleu(t, [o for j, o in enumerate(texts) if j != i]).score
        for i, t in enumerate(texts)
    ]
    assert of("self_bleu", texts, [])["self_bleu"] == pytest.approx(sum(slow) / 9, abs=1e-9)
    assert slow[0] == pytest.approx(100), "it has a double"
    assert of("self_bleu", texts[:1], []) == {}
    many = [f"word {i} of {i * i}" for i in range(150)]
    assert of("self_bleu", many, []) == of("self_bleu", many, []), "the same ones are drawn"
