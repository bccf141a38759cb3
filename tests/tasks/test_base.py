"""What a task is, and how one is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rlgf.demo.imdb import ImdbTask, labelled_reviews
from rlgf.errors import UserError
from rlgf.tasks import Task, build_task, load_split
from rlgf.tasks.base import column_names
from rlgf.tasks.chats import PromptedTask
from rlgf.types import Message, Sample
from toys import sentence_of


@pytest.mark.parametrize("task", [ImdbTask(), build_task("data", {"train": "a.jsonl"})])
def test_unknown_splits_are_named(task: Task) -> None:
    with pytest.raises(UserError, match=r"no split 'tests': did you mean 'test'\? Known: test, train, valid"):
        task.load("tests")
    with pytest.raises(UserError, match="no split"):
        labelled_reviews("tests")


def changed(field: str, value: Any) -> Sample:
    """A sample with a field of another kind, as a program without types would make it."""
    sample = Sample("a", ("b",))
    object.__setattr__(sample, field, value)
    return sample


class Loads:
    def __init__(self, found: Any) -> None:
        self.found = found

    def load(self, split: str) -> Any:
        return self.found


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "load('train') must return a list of rlgf.Sample (it returned a NoneType)"),
        (iter([Sample("a")]), "must return a list of rlgf.Sample (it returned a list_iterator)"),
        ("text", "must return a list of rlgf.Sample (it returned a str)"),
        ([], "the task's split 'train' is empty"),
        (
            [Sample("a"), {"prompt": "b"}],
            "sample 1 of the task's split 'train' must be an rlgf.Sample (it is {'prompt'",
        ),
        ([changed("prompt", 3)], "sample 0 of the task's split 'train': 'prompt' must be a text (it is 3)"),
        ([changed("references", "abc")], "'references' must be a tuple of texts (it is 'abc')"),
        ([changed("references", (1,))], "'references' must be a tuple of texts (one is 1)"),
        ([changed("columns", {1: 2})], "'columns' must be a mapping of names to values (it is {1: 2})"),
        ([changed("rejected", 5)], "'rejected' must be a text (it is 5)"),
        ([changed("cue", 5)], "'cue' must be a text (it is 5)"),
        ([changed("messages", "hi")], "'messages' must be a tuple of rlgf.Message (it is 'hi')"),
        (
            [changed("messages", ({"role": "user", "content": "hi"},))],
            "'messages' must be a tuple of rlgf.Message (it is ({'role'",
        ),
        ([changed("messages", (Message("user", "\ud800"),))], "'messages' has half of a surrogate pair"),
        ([Sample("a", rejected="\ud800")], "'rejected' has half of a surrogate pair"),
        ([Sample("a\ud800")], "'prompt' has half of a surrogate pair"),
    ],
)
def test_what_a_task_of_ones_own_loads_is_looked_at(found: Any, said: str) -> None:
    assert said in sentence_of(lambda: load_split(Loads(found), "train"))


def test_a_sample_that_is_made_when_it_is_asked_for_is_looked_at_then() -> None:
    class Lazy(Sequence[Sample]):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, number: int) -> Sample:
            return Sample("a") if number == 0 else changed("prompt", None)

    samples = PromptedTask(Loads(Lazy()), lambda: pytest.fail("no chats")).load("test")
    assert "sample 1 of the task's split 'test': 'prompt' must be a text" in sentence_of(lambda: samples[-1])


def test_the_first_samples_name_the_columns_and_one_that_is_none_is_said() -> None:
    samples: list[Any] = [Sample("a", columns={"n": 1}), Sample("b", columns={"m": 1, "n": 2})]
    assert list(column_names(samples, "test")) == ["n", "m"]
    with pytest.raises(UserError, match=r"sample 2 of the task's split 'test' must be an rlgf.Sample"):
        column_names([*samples, {"prompt": "a"}], "test")
