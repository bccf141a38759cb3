"""Whether a free-form answer to a problem of mathematics is right."""

from __future__ import annotations

import logging
import threading
from typing import Any, ClassVar

from rlgf.errors import UserError
from rlgf.strict import Strict

_LONGEST = 10_000
"""Characters of the end of a text that are searched for an answer."""
_SECONDS = 5


class MathVerify(Strict):
    """1 where a text's answer equals the known one as mathematics, else 0: 1/2 is 0.5, and (x+1)^2 may be expanded.

    The answer is the last ``\\boxed{...}``, or without one what the package math-verify finds: the last number or formula.

    The known answer is a column of the data, after the last ``####`` where it has one (as GSM8K's), or the first
    reference. Each step may take 5 seconds, outside of the main thread any time; what takes longer is not right.
    """

    reads_text: ClassVar = True

    column: str = "answer"
    """Where there is no such column, the first reference is the known answer."""

    def __call__(
        self, prompts: list[str], completions: list[str], references: Any = None, **columns: Any
    ) -> list[float | None]:
        """1 or 0 for each completion; None, which is no reward, where the known answer cannot be read.

        Raises:
            UserError: there is no known answer, or the package math-verify is not installed.
        """
        known = columns.get(self.column)
        if known is None:
            known = [texts[0] if texts else None for texts in references or [()] * len(completions)]
        if self.column in columns and None in known:
            raise UserError(
                f"the reward 'math-verify' finds no known answer: the column '{self.column}' has a row without one (it is null or missing): "
                "fill it in, or drop the row."
            )
        if any(answer is None for answer in known):
            raise UserError(
                f"the reward 'math-verify' finds no known answer: give the data a column '{self.column}', name another by "
                "'reward.options.column', or give references."
            )
        return [_right(str(answer), text) for answer, text in zip(known, completions, strict=True)]


def _right(known: str, text: str) -> float | None:
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise UserError(
            "the reward 'math-verify' needs the package math-verify: pip install math-verify==0.9.0."
        ) from error
    # The package says at every call without a time limit that there is none.
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    limit = _SECONDS if threading.current_thread() is threading.main_thread() else None
    known = known.rpartition("####")[2].strip()
    # An escaped sign stands for dollars, as in "\\$18.50".
    marked = "$" in known.replace("\\$", "") or "\\boxed" in known
    right = parse(known if marked else f"${known}$", parsing_timeout=limit)
    if not right:
        return None
    text = text[-_LONGEST:]
    # Of several boxes the package takes the first ones too: who boxes many numbers would have answered with each.
    found = parse(text[max(text.rfind("\\boxed"), 0) :], parsing_timeout=limit)
    return float(verify(right, found, timeout_seconds=limit))
