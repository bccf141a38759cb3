"""Summaries of Reddit posts, after the cue ``TL;DR:``."""

from __future__ import annotations

from rlgf.errors import UserError
from rlgf.tasks.rows import Row, Samples
from rlgf.tasks.source import Source, checked, field
from rlgf.types import Sample

CUE = "TL;DR:"
_SUMMARIES = ("label", "completion")
"""What the known data sets call the summary."""


class TldrTask(Source):
    """TL;DR: summarize a Reddit post (Stiennon et al., arXiv 2009.01325).

    Reads the columns of `CarperAI/openai_summarize_tldr` (prompt, label) and of `trl-lib/tldr` (prompt,
    completion), from the hub or from files of yours. A prompt ends in ``TL;DR:``. One that is too long
    for the policy loses the end of its post: the header with the title and the cue stay.
    """

    def load(self, split: str) -> Samples:
        """The rows of the split, in their order.

        Raises:
            UserError: there is no such split, it cannot be read, or a row among the first 10,000 has no prompt that ends
                in the cue, or no summary; it names the file and the line.
        """
        return checked(self.split_rows(split, "tldr"), self._sample)

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
        return summary_sample(prompt.rstrip().removesuffix(CUE), summary, columns)


def summary_sample(post: str, summary: str, columns: Row) -> Sample:
    """A post and its summary in one format, whatever spaces the source has at their borders."""
    cue = post[len(post.rstrip()) :] + CUE
    return Sample(post.rstrip() + cue, (" " + summary.strip(),), columns, cue=cue)


def _shown(value: object) -> str:
    """The end of a value, for a message."""
    whole = repr(value)
    return whole if len(whole) <= 80 else "..." + whole[-77:]
