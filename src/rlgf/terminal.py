"""Text that cannot steer a terminal."""

from __future__ import annotations


def visible(text: str, kept: str = "\n") -> str:
    """A text as it is, but for control characters, which are escaped.

    Args:
        kept: those that stay as they are.
    """
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def printable(text: str) -> str:
    """The same in one line, with one space where there are several."""
    return visible(" ".join(text.split()))
