"""The reward `math-verify`: answers are compared as mathematics."""

from __future__ import annotations

import threading
import time

import pytest

from rlgf.errors import UserError
from rlgf.rewards import RewardInput, build_reward, checked_rewards


def paid(known: str, text: str) -> float | None:
    (found,) = build_reward("math-verify", {})(prompts=[""], completions=[text], answer=[known])
    return found


@pytest.mark.parametrize(
    ("known", "text"),
    [
        ("42", "The answer is 42."),
        ("She sells 9 at $2. <<9*2=18>>\n#### 18", "16 - 3 - 4 = 9, so 9 * 2 = 18.\n#### 18"),
        ("\\frac{1}{2}", "so we get $x = 0.5$"),
        ("0.5", "so we get \\boxed{\\frac12}"),
        ("1,234", "It is 1234"),
        ("$x^2+2x+1$", "\\boxed{(x+1)^2}"),
        ("(3, 4)", "\\boxed{(3,4)}"),
        ("\\$18.50", "It costs \\boxed{\\$18.50}"),
        ("$18.50", "It costs $18.50"),
    ],
)
def test_equal_answers_are_paid_in_whatever_form(known: str, text: str) -> None:
    assert paid(known, text) == 1.0
    first = "\\boxed{999}" if "boxed" in text else "999"
    assert paid(known, f"first {first}, then: {text}") == 1.0
    assert paid(known, f"{text} No: \\boxed{{999}}") == 0.0
    assert paid(known, "7 and no more") == 0.0
    assert paid(known, "no idea") == paid(known, "") == 0.0


def test_an_answer_that_would_never_end_is_not_right() -> None:
    start = time.monotonic()
    assert paid("10", "9**9**9**9**9") == 0.0
    assert time.monotonic() - start < 30


def test_it_works_in_any_thread() -> None:
    found: list[float | None] = []
    thread = threading.Thread(target=lambda: found.append(paid("42", "It is 42")))
    thread.start()
    thread.join()
    assert found == [1.0]


def test_the_known_answer_is_a_column_or_the_reference() -> None:
    given = RewardInput(["", ""], ["7", "8"], {"gold": ["7", "9"]}, [("8",), ("8",)])
    assert checked_rewards(build_reward("math-verify", {"column": "gold"}), given).tolist() == [1.0, 0.0]
    assert checked_rewards(build_reward("math-verify", {}), given).tolist() == [0.0, 1.0]
    bare = RewardInput([""], ["7"], {})
    with pytest.raises(UserError, match="finds no known answer: give the data a column 'answer'"):
        checked_rewards(build_reward("math-verify", {}), bare)
    some = RewardInput(["", ""], ["7", "8"], {"answer": ["7", None]})
    with pytest.raises(UserError, match="the column 'answer' has a row without one"):
        checked_rewards(build_reward("math-verify", {}), some)


def test_a_known_answer_that_cannot_be_read_is_no_reward() -> None:
    assert paid("", "42") is None
