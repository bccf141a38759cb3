"""Texts that cannot steer a terminal, and numbers for people."""

from __future__ import annotations

from rich.text import Text

_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""Fillers and joiners that Python takes for printable, and that nobody sees."""


def visible(text: str, kept: str = "\n") -> str:
    """A text as it is, but for control characters and those that nobody sees, which are escaped unless they are ``kept``."""
    shown = (c in kept or (c.isprintable() and c not in _BLANK) for c in text)
    return "".join(
        c if as_it_is else c.encode("unicode_escape").decode()
        for c, as_it_is in zip(text, shown, strict=True)
    )


def printable(text: str) -> str:
    """The same in one line, with one space where there are several."""
    return visible(" ".join(text.split()))


def number(value: float, digits: int = 4) -> str:
    """So many digits, or all that stand before the point: no power of ten for a large number."""
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


_STYLES = {"policy": "cyan", "guide": "yellow", "reference": "green", "past": "blue"}


def append_part(line: Text, author: str, text: str) -> None:
    """Write who wrote a text and the text after it, in the author's colour."""
    style = _STYLES.get(author, "magenta")
    line.append(f"[{printable(author)}] ", style=f"bold {style}")
    line.append(f"{text} ", style=style)
