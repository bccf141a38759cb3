"""What a sample lacks is told in a sentence, and nothing is said where it has all."""

from __future__ import annotations

import pytest

from rlgf.algorithms import algorithm_from
from rlgf.algorithms.spec import lacking
from rlgf.types import Sample

BARE = Sample("a")


@pytest.mark.parametrize(
    ("row", "sample", "message"),
    [
        ("offline-dpo", BARE, "have no rejected text"),
        ("bc", BARE, "needs reference texts"),
        ("questa", BARE, "needs reference texts"),
        (
            {"base": "grpo", "script": {"hint": {"column": "tip"}}, "help": {"probability": 1.0}},
            Sample("a", columns={"topic": "b"}),
            "column 'tip', and a sample has none (its columns: topic)",
        ),
    ],
    ids=["no pair", "no reference", "no reference for a hint", "no column"],
)
def test_a_sample_lacks_what_a_row_reads(row: object, sample: Sample, message: str) -> None:
    assert message in str(lacking(algorithm_from(row), sample))


@pytest.mark.parametrize("row", ["ppo", "bc", "offline-dpo"])
def test_a_full_sample_lacks_nothing(row: str) -> None:
    assert lacking(algorithm_from(row), Sample("a", references=("b",), rejected="c")) is None
