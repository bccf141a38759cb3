"""A calculator: it answers an expression that ends in an equals sign with its value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rlgf.tasks.answers import evaluated, number

_EXPRESSION = re.compile(r"[-+*/(). \d]+")
_BEGINNING = re.compile(r"(?:(?<=\s)|^)(?:\(|-?[\d(])")
_SIGNS = str.maketrans({"\u00d7": "*", "\u00b7": "*", "\u00f7": "/", "\u2212": "-", "^": "**"})
_OPERATOR = re.compile(
    r"[-+*/]\s*$|\bof\s*$"
    # Signs that end no sentence may be an operator that is not known here, as in `20% of`.
    r"|\d[^\S\n]*(?:[^\w\s.,:;!?=()\[\]{}\"']+|x|mod|div|times|plus|minus|by|over)[^\S\n]*$",
    re.IGNORECASE,
)
_LONGEST = 200
"""Characters of an expression: a longer one nests deeper than a parser may go."""


class Calculator:
    """Writes the value after each expression of numbers, as in ``12 + 7 =``; other turns end the dialogue.

    The expression is the longest end of the turn that is one, of numbers, ``+ - * / ^``, points and parentheses: after
    ``Step 1. 3 + 4 =`` stands 7. Where there is none, or where it goes on from another operator, as in
    ``7 mod 2 =`` and ``20% of 50 =``, ``?`` is the answer.
    """

    stop = "="

    def __init__(self, after: str = "\n") -> None:
        """
        Args:
            after: the text that follows a value.
        """
        self.after = after

    def __call__(self, turns: Sequence[str], **known: Any) -> str | None:
        """See `Environment`."""
        said = turns[-1].rstrip()
        if not said.endswith(self.stop):
            return None
        return f" {_value(said.rstrip(self.stop).rstrip().translate(_SIGNS)[-_LONGEST:])}{self.after}"


def _value(text: str) -> str:
    for place in (found.start() for found in _BEGINNING.finditer(text)):
        # What an operator stands before is not the beginning of an expression.
        if _OPERATOR.search(text[:place]) or not _EXPRESSION.fullmatch(text[place:]):
            continue
        try:
            return number(evaluated(text[place:]))
        except ValueError:
            continue
    return "?"
