"""JSON as every reader takes it."""

from __future__ import annotations

import json

import pytest
import torch

from rlgf.jsontext import to_json, whole_characters


def test_json_has_no_word_for_infinity() -> None:
    found = to_json({"a": float("nan"), "b": [1.5, float("inf")], 3: torch.tensor([float("-inf"), 2.0])})
    assert json.loads(found, parse_constant=lambda word: pytest.fail(word)) == {
        "a": None,
        "b": [1.5, None],
        "3": [None, 2.0],
    }


def test_half_a_character_is_replaced_and_two_halves_are_joined() -> None:
    assert whole_characters("a\ud83d\ude00b\ud83dc") == "a\U0001f600b\ufffdc"
