"""What a guide is: anything that continues a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rlgf.types import Completion


@dataclass(frozen=True)
class Request:
    """One text to continue.

    The seed belongs to the request, not to the call: an answer depends on its own request alone,
    however requests are batched or timed.
    """

    prefix: str
    max_new_tokens: int
    """In tokens of the policy: write at least that much text, what is over is cut."""
    seed: int
    prefix_ids: tuple[int, ...] | None = None
    """The prefix as tokens of the policy, for a guide that shares its tokenizer."""


@runtime_checkable
class Guide(Protocol):
    """A black box that continues texts. To bring your own, write a class with this method."""

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion a request, in the same order."""
        ...
