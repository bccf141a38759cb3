"""The trivial task of the examples: prompts of a few letters, and the share of e in what is written after them."""

from __future__ import annotations

from rlgf import Sample


class Letters:
    """Prompts such as "abc"; the reference text is all e."""

    def load(self, split: str) -> list[Sample]:
        start = {"train": 0, "validation": 7, "test": 13}[split]
        return [Sample("abcd"[i % 4] + "wxyz"[(i // 4 + start) % 4], ("eeeeeeee",)) for i in range(64)]


def share_of_e(completions: list[str], **columns: object) -> list[float]:
    """The share of a text's letters that are an e."""
    return [text.count("e") / max(len(text), 1) for text in completions]
