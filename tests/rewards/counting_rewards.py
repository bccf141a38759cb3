"""A reward that counts how often it has learned, and one whose answer is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlgf.types import Rollout

TEXTS = ["a", "bb", "ccc"]


class Counting:
    """Pays the number of episodes that it has learned from."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        return [float(self.seen)] * len(completions)

    def update(self, rollout: Rollout) -> dict[str, float]:
        self.seen += len(rollout)
        return {"seen": float(self.seen)}

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen = state["seen"]


COUNTING = f"{__name__}:Counting"


class Returns:
    """A reward that gives a fixed answer."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> Any:
        return self.answer
