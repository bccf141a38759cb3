"""Selectors: which of the tokens that it reads a loss term learns from, as a weight for each.

A selector names what it reads, one parameter for each, and its other parameters are options; your own is one function
in one file::

    def improbable(logprobs, *, below=0.1):
        return (logprobs.exp() < below).float()

named from a recipe as ``select: {name: mine.py:improbable, options: {below: 0.05}}``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import model_validator
from torch import Tensor

from rlgf.algorithms.functions import misfit, parameters
from rlgf.objectives import selectors
from rlgf.registry import resolve
from rlgf.strict import Strict

Selector = Callable[..., Tensor]

SELECTORS: Mapping[str, Selector] = {
    "top_entropy": selectors.top_entropy,
    "uncertainty": selectors.uncertainty,
}

SELECTABLE = frozenset({"mask", "author", "logprobs", "old_logprobs", "entropy", "advantages"})
"""The fields of `rlgf.algorithms.terms.LossInputs` that a selector may read."""


class Selection(Strict):
    """A selector with its options; in a recipe the bare name is short for one without."""

    name: str
    """A name of `SELECTORS`, or your own function as `file.py:function`."""
    options: Mapping[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data

    @property
    def function(self) -> Selector:
        """
        Raises:
            UserError: there is no such selector.
        """
        found: Selector = resolve(self.name, SELECTORS, "the selector")
        return found

    @property
    def reads(self) -> frozenset[str]:
        """Which fields of `LossInputs` it reads."""
        return parameters(self.function) & SELECTABLE

    def misfit(self, term: str) -> str | None:
        """Why its function cannot be called as the term says, in a clause; None where it can."""
        what, where = f"the selector '{self.name}'", f"the term '{term}'"
        return misfit(resolve(self.name, SELECTORS, "the selector"), self.options, what, where, SELECTABLE)
