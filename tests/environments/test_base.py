"""Environments are called by keyword, with what they take of a dialogue and of its sample."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rlgf.environments import ENVIRONMENTS, EnvironmentConfig, reply_to
from rlgf.environments.base import Environment, stop_of
from rlgf.environments.calculator import Calculator
from rlgf.errors import UserError
from rlgf.registry import resolve
from rlgf.types import Message, Sample

SAMPLE = Sample("ask", ("answer",), {"number": 7, "turns": "hidden by ours"})
DIALOGUE = (Message("assistant", "one"), Message("user", "two"), Message("assistant", "three"))


def test_it_is_told_what_was_said_and_the_columns() -> None:
    def told(turns: list[str], replies: list[str], prompt: str, references: list[str], number: int) -> str:
        return f"{turns} {replies} {prompt} {references} {number}"

    assert reply_to(told, SAMPLE, DIALOGUE) == "['one', 'three'] ['two'] ask ['answer'] 7"


def test_it_may_change_what_it_is_given() -> None:
    def deals(turns: list[str], deck: list[str], hands: dict[str, list[str]]) -> str:
        hands["you"].append(deck.pop())
        return hands["you"][-1]

    sample = Sample("ask", columns={"deck": ["ace", "king"], "hands": {"you": []}})
    assert [reply_to(deals, sample, DIALOGUE) for _ in range(3)] == ["king"] * 3
    assert sample.columns == {"deck": ["ace", "king"], "hands": {"you": []}}


def test_one_that_takes_all_is_given_all_and_none_ends_a_dialogue() -> None:
    def told(**known: Any) -> None:
        assert set(known) == {"turns", "replies", "prompt", "references", "number"}

    assert reply_to(told, SAMPLE, DIALOGUE) is None


def test_what_it_needs_and_is_not_given_is_named() -> None:
    def asks(turns: list[str], secret: str) -> str:
        return secret

    with pytest.raises(UserError, match="the environment takes 'secret', which is not given"):
        reply_to(asks, SAMPLE, DIALOGUE)


@pytest.mark.parametrize("answer", [5, b"ab", "a\ud800"])
def test_what_is_no_text_is_refused(answer: object) -> None:
    with pytest.raises(
        UserError, match=r"^the environment (must answer a turn with a text|answered with half)"
    ):
        reply_to(lambda turns: answer, SAMPLE, DIALOGUE)


def test_only_an_environment_with_a_stop_has_one() -> None:
    def plain(turns: list[str]) -> None:
        return None

    assert stop_of(plain) == ""
    assert stop_of(Calculator()) == "="
    assert isinstance(Calculator(), Environment)


def test_each_name_is_that_of_a_class() -> None:
    for name in ENVIRONMENTS:
        assert isinstance(resolve(name, ENVIRONMENTS, "environment"), type)
        assert callable(EnvironmentConfig(name=name).build())


def test_ones_own_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def plain(turns):\n    return None\n"
        "class Told:\n"
        "    def __init__(self, word):\n        self.word = word\n"
        "    def __call__(self, turns):\n        return self.word\n"
    )
    assert EnvironmentConfig(name=f"{tmp_path}/mine.py:plain", options={}).build()(["x"]) is None
    assert EnvironmentConfig(name=f"{tmp_path}/mine.py:Told", options={"word": "hm"}).build()(["x"]) == "hm"
    with pytest.raises(UserError, match="needs the option 'word'"):
        EnvironmentConfig(name=f"{tmp_path}/mine.py:Told", options={}).build()
    with pytest.raises(UserError, match="is a function, so it takes no options"):
        EnvironmentConfig(name=f"{tmp_path}/mine.py:plain", options={"word": "hm"}).build()


def test_an_answer_may_be_waited_for() -> None:
    async def slow(turns: list[str]) -> str:
        await asyncio.sleep(0)
        return turns[-1]

    assert reply_to(slow, SAMPLE, DIALOGUE) == "three"
