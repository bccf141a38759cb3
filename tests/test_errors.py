"""What a user is told: the first of several faults, the nearest right word, and the traceback of his own code."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from rlgf.cachedir import cached_folder
from rlgf.errors import (
    FailedElsewhereError,
    LostProcessError,
    RefusedError,
    UserError,
    misfit,
    nearest,
    not_expanded,
    one_line,
    own_traceback,
)
from rlgf.loads import loading
from rlgf.tasks.textfiles import require_there


def test_of_several_faults_the_first_is_the_error() -> None:
    error = RefusedError(["one.", "two."])
    assert str(error) == "one."
    assert error.sentences == ["one.", "two."]
    assert all(issubclass(kind, UserError) for kind in (RefusedError, FailedElsewhereError, LostProcessError))


def test_an_unknown_name_points_to_the_nearest_whatever_its_case() -> None:
    assert nearest("RWRD", ["task", "reward"]) == "did you mean 'reward'? Known: reward, task."
    assert nearest("x", ["task", "reward"]) == "choose from reward, task."
    assert nearest("coef", ["coefficient", "count"]).startswith("did you mean 'coefficient'?")
    assert nearest("train.jsonl", ["reasoning", "data"]) == "choose from data, reasoning."


@pytest.mark.parametrize(
    ("annotation", "value", "words"),
    [
        (int, "two", "it must be a whole number"),
        (int, 2.5, "it must be a whole number"),
        (float, None, "it must be a number"),
        (bool, 7, "it must be true or false"),
        (str, 5, "it must be a text"),
        (dict[str, int], [], "it must be a mapping of names to values"),
        (Literal["head", "separate"], "heads", "it must be 'head' or 'separate'"),
        (Annotated[float, Field(allow_inf_nan=False)], math.nan, "it must be a finite number"),
        (Annotated[int, Field(ge=1)], 0, "it must be at least 1"),
        (Annotated[float, Field(gt=0)], 0, "it must be more than 0"),
        (Annotated[int, Field(le=9)], 10, "it must be at most 9"),
        (Annotated[float, Field(lt=0.5)], 1, "it must be less than 0.5"),
        (Annotated[dict[str, int], Field(min_length=2)], {}, "it must have at least 2 entries (it has 0)"),
    ],
)
def test_what_does_not_fit_is_said_without_the_words_of_pydantic(
    annotation: Any, value: Any, words: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(annotation).validate_python(value)
    assert misfit(caught.value.errors()[0]) == words


def test_a_traceback_begins_where_the_users_code_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLGF_CACHE", str(tmp_path))

    def make(folder: Path) -> None:
        raise ValueError("red \x1b[31m text")

    with pytest.raises(ValueError, match="red") as caught:
        cached_folder("model", make)
    shown = own_traceback(caught.value)
    assert "in make" in shown
    assert "in cached_folder" not in shown
    assert "red \\x1b[31m text" in shown, "nothing that is quoted can steer the terminal"


def test_a_traceback_without_the_users_code_is_whole() -> None:
    with pytest.raises(IndexError) as caught:
        RefusedError([])
    caught.value.__traceback__ = caught.value.__traceback__.tb_next if caught.value.__traceback__ else None
    assert "in __init__" in own_traceback(caught.value)


def test_what_others_say_becomes_a_part_of_a_sentence() -> None:
    assert one_line(ValueError(" it  failed,\n\tas ever. "), 200) == "it failed, as ever"
    assert one_line("one two", 5) == "one t"


def test_a_path_that_a_shell_did_not_expand_is_told_wherever_it_is_read() -> None:
    said = f"; '~' is not expanded: write {Path.home()} in its place"
    assert not_expanded("~/a") == said
    assert not_expanded("/a/~b") == ""
    with (
        pytest.raises(UserError, match=re.escape(f"there is no folder ~/none{said}.")),
        loading("it", "~/none"),
    ):
        raise OSError("none")
    with pytest.raises(UserError, match=re.escape(f"there is no such file{said}.")):
        require_there(Path("~/none.jsonl"))
