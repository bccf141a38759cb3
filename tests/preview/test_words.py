"""An algorithm's row in plain words."""

from __future__ import annotations

from typing import Any

import pytest

from rlgf.algorithms import Algorithm, algorithm_from
from rlgf.preview.words import help_words, schedule
from rlgf.rollout.config import RolloutConfig
from rlgf.schedules import Schedule, constant


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (constant(0.5), "0.5"),
        (Schedule(start=1, end=0), "1, falling to 0 over the run (linear)"),
        (Schedule(start=0, end=1, shape="cosine", over=0.5), "0, rising to 1 over the first 50% of the run (cosine)"),
        (Schedule(start=0, end=1, shape="step", over=0.4), "0, and 1 from 40% of the run on"),
        (
            Schedule(start=2, end=2, warmup=0.1),
            "2, times a warm-up from 0 to 1 over the first 10% of the run",
        ),
    ],
)  # fmt: skip
def test_schedules_in_words(number: Schedule, words: str) -> None:
    assert schedule(number) == words


@pytest.mark.parametrize(
    ("base", "length", "words"),
    [
        ("adaback", {}, "the shortest after which more than 50% of the texts succeeded; "),
        ("bread", {}, "the shortest of 4 tries after which some texts succeed; "),
        ("bread", {"by": "difficulty", "low": 0.2}, "failed, within bounds from the share 0.2 to the share 1 of the text; "),
        ("ghpo", {"enough": 0.25}, "one after another until more than 25% of the texts succeed; "),
        ("scaf-grpo", {}, "one after another until some texts succeed; "),
    ],
)  # fmt: skip
def test_help_that_is_looked_for_says_what_is_enough_and_its_bounds(
    base: str, length: dict[str, Any], words: str
) -> None:
    row = algorithm_from({"base": base, "help": {"length": length}})
    assert isinstance(row, Algorithm)
    told = help_words(row, RolloutConfig())
    assert words in told
    if row.help.looks_first:
        assert told.endswith("on their own; the texts that are helped are then written again")
