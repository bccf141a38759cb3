"""The stand-in for TL;DR: reviews and the verdicts that they close with."""

from __future__ import annotations

import json
import re
from pathlib import Path

from rlgf.demo.imdb import labelled_reviews
from rlgf.demo.review_verdicts import ReviewVerdictsTask, write_verdict_pairs
from rlgf.tasks import Task, build_task


def test_a_verdict_is_the_last_sentence_of_its_review() -> None:
    reviews = dict(labelled_reviews("validation"))
    samples = ReviewVerdictsTask().load("validation")
    assert 150 < len(samples) < 500
    posts = {re.sub(r"\s+", " ", text): label for text, label in reviews.items()}
    for sample in samples:
        post = sample.prompt.removeprefix("POST: ").removesuffix("\n\nTL;DR:")
        (verdict,) = sample.references
        assert posts[post + verdict] == sample.columns["label"]
        assert 5 <= len(verdict.split()) <= 30
        assert verdict.startswith(" ")
        assert sample.cue == "\n\nTL;DR:"
        assert not re.search(r"[.!?]\s", verdict)
    assert isinstance(build_task("review-verdicts", {"max_words": 10}), Task)


def test_verdict_pairs_are_disjoint_between_splits_and_of_opposite_labels(tmp_path: Path) -> None:
    counts = write_verdict_pairs(tmp_path)
    records = {
        split: [json.loads(line) for line in (tmp_path / f"{split}.jsonl").read_text().splitlines()]
        for split in counts
    }
    assert {split: len(found) for split, found in records.items()} == counts
    assert set(counts) == {"train", "validation", "test", "reward", "judge"}
    labels = {s.references[0]: s.columns["label"] for s in ReviewVerdictsTask().load("validation")}
    prompts = {s.prompt: s for s in ReviewVerdictsTask().load("validation")}
    for record in records["validation"]:
        own = prompts[record["prompt"]]
        assert own.references[0] == record["chosen" if own.columns["label"] == "positive" else "rejected"]
        assert (labels[record["chosen"]], labels[record["rejected"]]) == ("positive", "negative")
    assert counts["validation"] == len(prompts)
    seen = [record["prompt"] for found in records.values() for record in found]
    assert len(seen) == len(set(seen))
