"""What a rule is, and two helpers that rules of several kinds share."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rlgf.sections import Sections

Rule = Callable[[Sections], str | None]


def first(sentences: Iterable[str | None]) -> str | None:
    """The first fault, where there is one."""
    return next((sentence for sentence in sentences if sentence is not None), None)
