"""A calculator: it answers an expression that ends in an equals sign with its value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rlgf.tasks.answers import evaluated, number

_EXPRESSION = re.compile(r"[-+*/(). \d]*\d[-+*/(). \d]*$")
_LONGEST = 200
"""Characters of an expression: a longer one nests deeper than a parser may go."""


class Calculator:
    """Writes the value after each expression of numbers, as in ``12 + 7 =``; other turns end the dialogue.

    The expression is the end of the turn before the equals sign, as far as it is made of numbers, ``+ - * /``, points
    and parentheses. One that has no value is answered by ``?``.
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
        if not turns[-1].rstrip().endswith(self.stop):
            return None
        return f" {self._value(turns[-1].rstrip()[: -len(self.stop)])}{self.after}"

    def _value(self, before: str) -> str:
        found = _EXPRESSION.search(before.rstrip()[-_LONGEST:])
        try:
            return number(evaluated(found.group().strip())) if found else "?"
        except ValueError:
            return "?"
