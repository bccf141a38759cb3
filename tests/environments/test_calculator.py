"""The calculator answers expressions of numbers, and nothing else."""

from __future__ import annotations

import pytest

from rlgf.environments.calculator import Calculator


@pytest.mark.parametrize(
    ("turn", "reply"),
    [
        ("12 + 7 =", " 19\n"),
        ("First 3 * (4 - 6) =", " -6\n"),
        ("so 1 / 4 = ", " 0.25\n"),
        ("-2 ** 2=", " -4\n"),
        ("7 / 0 =", " ?\n"),
        ("12 + =", " ?\n"),
        ("x =", " ?\n"),
        ("=", " ?\n"),
        ("9 ** 9 ** 9 =", " ?\n"),
        ("(0 - 8) ** 0.5 =", " ?\n"),
        ("(" * 500 + "1 =", " ?\n"),
        ("1e5 + 1 =", " ?\n"),
        ("I add them. 3 + 4 =", " 7\n"),
        ("Step 1. 3 + 4 =", " 7\n"),
        ("1) 3 + 4 ==", " 7\n"),
        ("x + 3 =", " ?\n"),
        ("3 \u00d7 4 =", " 12\n"),
        ("10 \u2212 3 =", " 7\n"),
        ("9 \u00f7 2 =", " 4.5\n"),
        ("3 ^ 2 + 1 =", " 10\n"),
        ("3 x 4 + 2 =", " ?\n"),
        ("20% of 50 =", " ?\n"),
        ("half of 50 =", " ?\n"),
        ("7 mod 2 =", " ?\n"),
        ("7 % 2 =", " ?\n"),
        ("3 apples\nThen 3 + 4 =", " 7\n"),
        ("Step 2: 3 + 4 =", " 7\n"),
        ("Step 2 gives 3 + 4 =", " 7\n"),
        ("3 apples + 4 =", " ?\n"),
        ("1_0 =", " ?\n"),
        ("007 + 1 =", " ?\n"),
        ("-(2 + 3) * 2 =", " -10\n"),
        ("Answer: 19", None),
        ("", None),
    ],
)
def test_a_turn_that_ends_in_an_equals_sign_is_answered(turn: str, reply: str | None) -> None:
    assert Calculator()([turn]) == reply


def test_the_last_turn_counts_and_the_text_after_a_value_can_be_another() -> None:
    assert Calculator(after=". ")(["1 + 1 =", "2 + 2 ="]) == " 4. "
