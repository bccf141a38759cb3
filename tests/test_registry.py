"""A name of a recipe becomes one object, whoever asks for it."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.registry import build_from, resolve

COUNTING = "calls = []\ndef reward(completions, **kwargs):\n    return calls\n"


def write(path: Path, text: str, seconds: int) -> None:
    path.write_text(text)
    os.utime(path, (seconds, seconds))


def test_a_file_is_executed_once_until_a_configuration_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    write(file, COUNTING, 1)
    name = f"{file}:reward"
    resolve(name, {}, "reward")([]).append("kept")
    assert resolve(name, {}, "reward")([]) == ["kept"], "what a file keeps is shared by all that ask"
    write(file, COUNTING.replace("[]", "['edited']"), 2)
    assert resolve(name, {}, "reward")([]) == ["kept"], "a run goes on with the file that it began with"
    load_config("imdb")
    assert resolve(name, {}, "reward")([]) == ["edited"]
    load_config("imdb")
    resolve(name, {}, "reward")([]).append("kept")
    assert resolve(name, {}, "reward")([]) == ["edited", "kept"], "an unchanged file is not executed again"


DATACLASS = """
from __future__ import annotations
from dataclasses import dataclass
@dataclass
class Bonus:
    size: float
"""
PYDANTIC = """
from __future__ import annotations
from typing import Annotated
from pydantic import BaseModel, Field
class Bonus(BaseModel):
    size: Annotated[float, Field(gt=0)]
"""


@pytest.mark.parametrize("text", [DATACLASS, PYDANTIC])
def test_a_class_of_a_file_may_have_annotations_that_are_read_later(tmp_path: Path, text: str) -> None:
    # Named as a module of Python's own, which it hides from nobody.
    (tmp_path / "statistics.py").write_text(text)
    assert build_from(resolve(f"{tmp_path}/statistics.py:Bonus", {}, "reward"), {"size": 2.0}, "it").size == 2
    assert importlib.import_module("statistics").mean([1, 3]) == 2


def test_a_table_imports_no_more_than_is_named() -> None:
    table = {"here": "rlgf.errors:UserError", "broken": "no_such_module:thing"}
    assert resolve("here", table, "error") is UserError
    with pytest.raises(UserError, match=r"error 'no_such_module:thing': no_such_module cannot be imported"):
        resolve("broken", table, "error")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("heer", "is not known: did you mean 'here'"),
        ("mine.p-y:f", "'mine.p-y' is neither a file that ends in .py nor a module's name"),
        ("gone.py:f", "there is no file"),
        ("rlgf.errors:Missing", "rlgf.errors has no 'Missing'"),
    ],
)
def test_what_cannot_be_resolved_is_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(UserError, match=f"thing '{name}'.*{sentence}"):
        resolve(name, {"here": "rlgf.errors:UserError"}, "thing")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def f(:\n", r"cannot be imported \(invalid syntax \(mine.py, line 1\)\)"),
        ("def f():\n\tif 1:\n        pass\n", "cannot be imported .*inconsistent use of tabs"),
        ("import sys\nsys.exit(3)\n", r"ends the program while it is imported \(SystemExit\(3\)\)"),
    ],
)
def test_a_file_that_is_no_module_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UserError, match=f"thing '.*mine.py:f': .*{sentence}") as caught:
        resolve(f"{tmp_path}/mine.py:f", {}, "thing")
    assert "\n" not in str(caught.value)


def test_where_nothing_is_ours_no_empty_list_is_shown() -> None:
    with pytest.raises(UserError, match=r"^guide\.name 'guide' is not known\. Your own is named as"):
        resolve("guide", {}, "guide.name")


def test_a_function_that_is_not_called_with_options_is_told_how_it_is_called() -> None:
    def write(requests: list[str]) -> list[str]:
        return requests

    with pytest.raises(
        UserError,
        match=r"guide 'own' needs the option 'requests': a function is called once, with the options alone, and returns",
    ):
        build_from(write, {}, "guide 'own'")
