"""Parts of a run that do not fit, and what a user is told where they are named."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.guides import Request
from rlgf.run.build import build_parts
from rlgf.types import Completion, Sample

HERE = "unfit_parts"
SOUND: dict[str, Any] = {
    "task": "toys:LetterTask",
    "policy": {"scratch": {"context": 64}},
    "guide": {"url": "http://127.0.0.1:9/v1", "model": "nobody", "patience": 0.1, "timeout": 0.1},
    "reward": "toys:share_of_a",
    "rollout": {"episodes": 8, "max_prompt_tokens": 8, "max_response_tokens": 8},
    "evaluation": {"metrics": ["words"]},
}
NUMBER = 5


def group_mean(signals: Any) -> Tensor:
    return signals.rewards


def of_old_values(old_values: Tensor, mask: Tensor, normalizer: float) -> Tensor:
    return (old_values * mask).sum() / normalizer


def mute(completions: list[str]) -> list[float]:
    return [0.0 for _ in completions]


class Silent:
    """Neither writes, nor loads, nor can be called."""

    def __init__(self, loudness: int = 0) -> None:
        self.loudness = loudness


class BarePrompts:
    def load(self, split: str) -> list[Sample]:
        return [Sample("abcd")]


class Writes:
    def write(self, requests: list[Request]) -> list[Completion]:
        return [Completion("a", finished=False) for _ in requests]


def refusal(*sources: Any, task: str = "toys:LetterTask") -> str:
    """What a user is told where a run is built, made sure to be one sentence on one line."""
    other = any(isinstance(source, dict) and "guide" in source for source in sources)
    base = {key: value for key, value in SOUND.items() if not other or key != "guide"}
    with pytest.raises(UserError) as caught:
        build_parts(load_config(base, {"task": task}, *sources))
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message
