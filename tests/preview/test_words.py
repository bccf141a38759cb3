"""An algorithm's row in plain words."""

from __future__ import annotations

import pytest

from rlgf.preview.words import schedule
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
