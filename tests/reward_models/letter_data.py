"""Preferences among letters, and recipes to learn them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from rlgf.errors import UserError
from rlgf.reward_models.train import load_reward_recipe, train_reward_model

Rows = list[dict[str, Any]]


def write(path: Path, rows: Rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def letters(draw: random.Random, length: int = 6) -> str:
    return "".join(draw.choice("abcd") for _ in range(length))


def letter_pairs(count: int, seed: int) -> Rows:
    """The text with more of the letter a is preferred; the prompt says nothing."""
    draw, rows = random.Random(seed), []
    while len(rows) < count:
        one, other = sorted((letters(draw), letters(draw)), key=lambda text: -text.count("a"))
        if one.count("a") > other.count("a"):
            rows.append({"prompt": letters(draw, 2), "chosen": one, "rejected": other})
    return rows


def recipe(letter_folder: str, root: Path, rows: Rows, held_out: Rows, **changes: Any) -> dict[str, Any]:
    data = {"train": write(root / "train.jsonl", rows), "validation": write(root / "dev.jsonl", held_out)}
    return {
        "kind": "preference",
        "model": letter_folder,
        "output": str(root / "model"),
        "max_tokens": 32,
        "learning_rate": 5e-3,
        "epochs": 3,
        "data": data,
        **changes,
    }


TEXTS = (["ab", "cd", "a"], ["aaaa", "b", "dcbadcba"])
GOOD: Rows = [
    {"prompt": "a", "chosen": "ab", "rejected": "ba"},
    {"prompt": "b", "chosen": "a", "rejected": "b"},
]


def refusal(told: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        train_reward_model(load_reward_recipe(told))
    assert "\n" not in str(caught.value)
    return str(caught.value)
