"""How a recipe names a task."""

from __future__ import annotations

from typing import Any

import pytest

from rlgf.errors import UserError
from rlgf.registry import resolve
from rlgf.tasks import TASKS, Task, build_task
from rlgf.types import Sample


def test_tasks_say_what_they_are() -> None:
    found = [resolve(name, TASKS, "task") for name in TASKS]
    assert all((task.__doc__ or "").splitlines()[0].endswith(".") for task in found)


class Own:
    def __init__(self, size: int, word: str = "a") -> None:
        self.samples = [Sample(word)] * size

    def load(self, split: str) -> list[Sample]:
        return self.samples


NO_TASK = 3


def open_task(**options: Any) -> Own:
    return Own(options["anything"])


def not_a_task() -> int:
    return 3


class OfNoSplit:
    def load(self) -> list[Sample]:
        return []


def a_class() -> type[Own]:
    return Own


def test_your_own_task_is_built_with_its_options() -> None:
    task = build_task(f"{__name__}:Own", {"size": 2, "word": "b"})
    assert isinstance(task, Task)
    assert task.load("train") == [Sample("b")] * 2
    assert len(build_task(f"{__name__}:open_task", {"anything": 3}).load("train")) == 3


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("train.jsonl", {}, r"is a file of data: set 'task: {name: data, options: {train: train.jsonl}}'"),
        ("imbd", {}, r"task 'imbd' is not known: did you mean 'imdb'\?"),
        (
            "imdb",
            {"promt_words": 3},
            r"no option 'promt_words': did you mean 'prompt_words'\?.*label, prompt",
        ),
        ("imdb", {"prompt_words": "many"}, r"option 'prompt_words' \(it is 'many'\): .*whole number"),
        ("imdb", {"prompt_words": -1}, r"option 'prompt_words' \(it is -1\): .*at least 0"),
        ("imdb", {"label": "good"}, r"option 'label' \(it is 'good'\): .*'positive' or 'negative'"),
        ("data", {}, r"task 'data'.*give either files .* or 'data'"),
        ("data", {"data": "a", "train": "b"}, r"give either files"),
        (f"{__name__}:Own", {}, r"needs the option 'size'"),
        (f"{__name__}:Own", {"size": 1, "words": "b"}, r"no option 'words': did you mean 'word'\?"),
        (f"{__name__}:NO_TASK", {}, r"not a class or function"),
        (f"{__name__}:not_a_task", {}, r"built a int, which has no method load"),
        (f"{__name__}:OfNoSplit", {}, r"no method load\(split\) \(too many positional arguments\)"),
        (f"{__name__}:a_class", {}, r"built a type, which has no method load\(split\)"),
        ("data", {"train": 3}, r"option 'train' \(it is 3\): it must be a path"),
        ("data", {"train": []}, r"^task 'data': give either files"),
        ("data", {"train": "a", "subset": "b"}, r"'subset' does not go with files, and would not be read"),
        ("data", {"data": "a", "test": "b"}, r"'test' does not go with a data set of the hub"),
        ("data", {"train": "a", "template": "Q: {{q}}"}, r"'template'.*names no column, so that all prompts"),
        (f"{__name__}:not_a_task", {"a": 1}, r"no option 'a': it takes none"),
    ],
)
def test_wrong_names_and_options_are_one_sentence(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_task(name, options)
    assert "\n" not in str(caught.value)
