"""Reading recipes, laying one over another, and what is wrong in them as one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rlgf.config import load_config
from rlgf.errors import UserError

VALUES: dict[str, Any] = {
    "a word": "wrong",
    "negative": -1,
    "a list": [1],
    "a mapping": {"a": 1},
    "not a number": float("nan"),
    "nothing": None,
    "an interpolation": "${nowhere}",
}


def places(section: dict[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in section.items():
        yield (*before, key)
        if isinstance(value, dict) and value:
            yield from places(value, (*before, key))


@pytest.mark.parametrize("value", VALUES)
def test_no_value_of_a_recipe_ends_in_a_traceback(value: str) -> None:
    """Every field of a whole recipe gets it, in front of the recipe and after it."""
    base = {
        "task": {"name": "data", "options": {"train": "a.jsonl"}},
        "policy": {"model": "m"},
        "guide": {"model": "g"},
        "reward": {"name": "model", "options": {"folder": "r"}},
        "algorithm": "ppo++",
    }
    whole = load_config(base).model_dump(mode="json")
    for number, place in enumerate(places(whole)):
        change: dict[str, Any] = {}
        inner = change
        for key in place[:-1]:
            inner = inner.setdefault(key, {})
        inner[place[-1]] = VALUES[value]
        said = refusal(*((change, base) if number % 2 else (base, change)))
        assert said is None or ("\n" not in said and said.endswith(".")), (place, said)


def refusal(*sources: dict[str, Any]) -> str | None:
    try:
        load_config(*sources)
    except UserError as error:
        return str(error)
    return None
