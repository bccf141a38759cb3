"""What a task is: prompts in three splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from rlgf.types import Sample


@runtime_checkable
class Task(Protocol):
    """Where samples come from."""

    def load(self, split: str) -> Sequence[Sample]:
        """The samples of 'train', 'validation' or 'test', always in the same order."""
        ...


TASKS: Mapping[str, Callable[..., Task]] = {}
