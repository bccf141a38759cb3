"""A hint has a reader that can use it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rlgf.algorithms import algorithm_from


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"terms": {"distill": None, "nll": {}}}, "no term learns from the guide's probabilities"),
        ({"script": {"rollout": "guide"}}, "set 'script.rollout: policy'"),
        ({"base": "grpo", "help": {"probability": 1.0, "success": 0.5, "gate": {}}}, "none is written again"),
        (
            {"base": "grpo", "help": {"probability": 1.0, "success": 0.5, "length": {"by": "record"}}},
            "the guide alone reads this one",
        ),
    ],
)
def test_a_hint_that_no_guide_could_use_is_refused(changes: dict[str, Any], message: str) -> None:
    script = {"hint": {"author": "reference", "reader": "guide"}, **changes.pop("script", {})}
    terms = {"distill": {"loss": "distillation"}, **changes.pop("terms", {})}
    with pytest.raises(ValidationError, match=message):
        algorithm_from({"base": "opsd", **changes, "script": script, "terms": terms})


@pytest.mark.parametrize("base", ["dpo", "rebel"])
def test_both_texts_of_a_pair_are_written_after_one_prompt(base: str) -> None:
    row = {"base": base, "script": {"hint": {"author": "reference"}}}
    for help in ({"probability": 0.5, "shared": False}, {"members": 2, "shared": False}):
        with pytest.raises(ValidationError, match=r"after one prompt: .* 'help\.shared: true'"):
            algorithm_from({**row, "help": help})
    assert algorithm_from({**row, "help": {"probability": 0.5}})
