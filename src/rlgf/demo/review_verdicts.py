"""A stand-in for TL;DR that needs no network: film reviews, and the verdicts that they close with."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pydantic import Field

from rlgf import seeding
from rlgf.demo.imdb import labelled_reviews
from rlgf.errors import UserError
from rlgf.outputs import require_folder, require_none
from rlgf.strict import Strict
from rlgf.tasks.base import check_split
from rlgf.tasks.tldr import summary_sample
from rlgf.types import Sample

_MIN_POST_WORDS = 20


class ReviewVerdictsTask(Strict):
    """Film reviews as posts, their closing verdicts as summaries: a stand-in for TL;DR that needs no network.

    The last sentence of an IMDB review is the reference; what stands before it is the post. Reviews
    whose last sentence is too short or too long, or that are not much longer than it, are left out.
    The splits are those of the task `imdb`; the label is the column ``label``.
    """

    min_words: int = Field(default=5, ge=1)
    """Words of the shortest verdict."""
    max_words: int = Field(default=30, ge=1)

    def load(self, split: str) -> list[Sample]:
        """The samples of 'train', 'validation' or 'test', always in the same order.

        Raises:
            UserError: there is no such split, or the reviews cannot be loaded.
        """
        check_split(split, "review-verdicts")
        return self._verdicts(split)

    def pairs(self, split: str) -> list[dict[str, str]]:
        """Preference pairs: of a review's own verdict and that of a review with the opposite label, the
        positive one is preferred, whichever the review says.

        Args:
            split: of the reviews. 'reward' and 'judge' share no review with what policies are trained,
                validated and tested on, so reward models are to learn from these.

        Returns:
            Records with ``prompt``, ``chosen`` and ``rejected``, always the same ones.

        Raises:
            UserError: there is no such split, or the reviews cannot be loaded.
        """
        samples = self._verdicts(split)
        by_label = {
            label: [s.references[0] for s in samples if s.columns["label"] == label]
            for label in ("positive", "negative")
        }
        records = []
        for i, sample in enumerate(samples):
            others = by_label["negative" if sample.columns["label"] == "positive" else "positive"]
            own = sample.references[0]
            other = others[seeding.derive(0, "verdict pairs", split, i) % len(others)]
            chosen, rejected = (own, other) if sample.columns["label"] == "positive" else (other, own)
            if chosen != rejected:
                records.append({"prompt": sample.prompt, "chosen": chosen, "rejected": rejected})
        return records

    def _verdicts(self, split: str) -> list[Sample]:
        samples = []
        for text, label in labelled_reviews(split):
            post, verdict = _closing(text)
            words = verdict.count(" ") + 1
            if self.min_words <= words <= self.max_words and post.count(" ") + 1 >= _MIN_POST_WORDS:
                samples.append(summary_sample(f"POST: {post}\n\n", verdict, {"label": label}))
        return samples


def write_verdict_pairs(folder: Path) -> dict[str, int]:
    """The preference pairs of `review-verdicts` as JSON lines, a file for each split of the reviews.

    Returns:
        How many pairs each file holds.

    Raises:
        UserError: the reviews cannot be loaded, or the folder cannot be written or holds such files already.
    """
    counts, splits = {}, ("train", "validation", "test", "reward", "judge")
    require_folder(folder, "folder")
    require_none((folder / f"{split}.jsonl" for split in splits), "folder")
    for split in splits:
        records = ReviewVerdictsTask().pairs(split)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
            (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        except OSError as error:
            raise UserError(f"the folder {folder} cannot be written: {error.strerror}.") from error
        counts[split] = len(records)
    return counts


def _closing(text: str) -> tuple[str, str]:
    """What stands before the last sentence of a text, and that sentence."""
    ends = [found.end() for found in re.finditer(r"[.!?]+[\"')]*\s+", text)]
    return (text[: ends[-1]].rstrip(), text[ends[-1] :]) if ends else ("", text)
