"""Summaries behind the cue ``TL;DR:``: Reddit posts, and a stand-in of film reviews that needs no network."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from rlgf import seeding
from rlgf.errors import UserError
from rlgf.tasks.base import check_split
from rlgf.tasks.imdb import labelled_reviews
from rlgf.tasks.rows import Row, Samples
from rlgf.tasks.source import Source, field
from rlgf.types import Sample

CUE = "TL;DR:"
_SUMMARIES = ("label", "completion")
"""What the known data sets call the summary."""
_MIN_POST_WORDS = 20


class TldrTask(Source):
    """TL;DR: summarize a Reddit post (Stiennon et al., arXiv 2009.01325).

    Reads the columns of `CarperAI/openai_summarize_tldr` (prompt, label) and of `trl-lib/tldr` (prompt,
    completion), from the hub or from files of yours. A prompt ends in ``TL;DR:``. One that is too long
    for the policy loses the end of its post: the header with the title and the cue stay.
    """

    def load(self, split: str) -> Samples:
        """The rows of the split, in their order.

        Raises:
            UserError: the split is not to be had, or a row among the first 10,000 has no prompt that ends
                in the cue, or no summary; it names the file and the line.
        """
        return self.samples(split, "tldr", self._sample)

    def _sample(self, row: Row, place: str) -> Sample:
        prompt = field(row, "prompt", place)
        if not isinstance(prompt, str) or not prompt.rstrip().endswith(CUE):
            raise UserError(
                f"{place}: 'prompt' must be a text that ends in '{CUE}' (it is {_shown(prompt)})."
            )
        name = next((name for name in _SUMMARIES if name in row), _SUMMARIES[0])
        summary = field(row, name, place, "the summary must be there or in 'completion'")
        if not isinstance(summary, str) or not summary.strip():
            raise UserError(f"{place}: '{name}' must be a summary in words (it is {_shown(summary)}).")
        columns = {key: value for key, value in row.items() if key not in ("prompt", name)}
        return _summary_sample(prompt.rstrip().removesuffix(CUE), summary, columns)


class ReviewVerdictsTask(BaseModel):
    """Film reviews as posts, their closing verdicts as summaries: a stand-in for TL;DR that needs no network.

    The last sentence of an IMDB review is the reference; what stands before it is the post. Reviews
    whose last sentence is too short or too long, or that are not much longer than it, are left out.
    The splits are those of the task `imdb`; the label is the column ``label``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_words: int = Field(default=5, ge=1)
    """Words of the shortest verdict."""
    max_words: int = Field(default=30, ge=1)

    def load(self, split: str) -> list[Sample]:
        """The samples of 'train', 'validation' or 'test', always in the same order.

        Raises:
            UserError: there is no such split, or the reviews are not to be had.
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
            UserError: there is no such split, or the reviews are not to be had.
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
                samples.append(_summary_sample(f"POST: {post}\n\n", verdict, {"label": label}))
        return samples


def write_verdict_pairs(folder: Path) -> dict[str, int]:
    """The preference pairs of `review-verdicts` as JSON lines, a file for each split of the reviews.

    Returns:
        How many pairs each file holds.

    Raises:
        UserError: the reviews are not to be had, or the folder cannot be written.
    """
    counts = {}
    for split in ("train", "validation", "test", "reward", "judge"):
        records = ReviewVerdictsTask().pairs(split)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
            (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        except OSError as error:
            raise UserError(f"the folder {folder} cannot be written: {error.strerror}.") from error
        counts[split] = len(records)
    return counts


def _summary_sample(post: str, summary: str, columns: Row) -> Sample:
    """A post and its summary in one format, whatever spaces the source has at their borders."""
    cue = post[len(post.rstrip()) :] + CUE
    return Sample(post.rstrip() + cue, (" " + summary.strip(),), columns, cue=cue)


def _closing(text: str) -> tuple[str, str]:
    """What stands before the last sentence of a text, and that sentence."""
    ends = [found.end() for found in re.finditer(r"[.!?]+[\"')]*\s+", text)]
    return (text[: ends[-1]].rstrip(), text[ends[-1] :]) if ends else ("", text)


def _shown(value: object) -> str:
    """The end of a value, for a message."""
    whole = repr(value)
    return whole if len(whole) <= 80 else "..." + whole[-77:]
