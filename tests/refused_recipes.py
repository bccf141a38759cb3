"""A sound recipe, and what a user is told of one that is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlgf.config import load_config
from rlgf.errors import UserError

BASE: dict[str, Any] = {
    "task": "imdb",
    "policy": {"model": "gpt2"},
    "guide": {"model": "gpt2-large"},
    "reward": "sentiment",
}
Source = str | Path | dict[str, Any]


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in BASE.items() if name != key}


def recipe(tmp_path: Path, text: str, name: str = "recipe.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def refusal(*sources: Source) -> str:
    """What a user is told, made sure to be one sentence on one line."""
    with pytest.raises(UserError) as caught:
        load_config(*sources)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message
