"""The task `reasoning`: disjoint splits, prompts and references in a form, and what is refused."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from rlgf.errors import UserError
from rlgf.tasks import Task, build_task
from rlgf.tasks.base import SPLITS

SMALL = {"train_samples": 30, "validation_samples": 10, "test_samples": 10}


def reasoning(dataset: str, **options: Any) -> Task:
    return build_task("reasoning", {**SMALL, "dataset": dataset, **options})


def test_splits_share_no_question_also_where_there_are_few() -> None:
    # 10 digits, 2 operators: 200 problems, so that a stream of 50 would repeat some.
    task = reasoning("chain_sum", min_terms=2, max_terms=2, max_digits=1)
    questions = [sample.columns["question"] for split in SPLITS for sample in task.load(split)]
    assert [len(task.load(split)) for split in SPLITS] == [30, 10, 10]
    assert len(set(questions)) == 50
    raw = [task._problems[i]["question"] for i in range(50)]
    assert len(set(raw)) < 50, "the data set itself repeats some of its first problems"


def test_the_test_split_does_not_depend_on_the_training_data() -> None:
    one, other = reasoning("gcd"), reasoning("gcd", train_samples=5)
    assert one.load("test") == other.load("test")
    assert one.load("test") != reasoning("gcd", seed=1).load("test")


def test_more_problems_than_there_are_is_one_sentence() -> None:
    task = reasoning("chain_sum", min_terms=1, max_terms=1, max_digits=1)
    with pytest.raises(
        UserError, match="'chain_sum' repeats itself after 10 distinct problems, and 50 are asked"
    ):
        task.load("train")


def test_a_prompt_is_a_template_of_the_question_and_the_metadata() -> None:
    sample = reasoning("spell_backward", prompt="{word}>").load("train")[0]
    word = sample.columns["metadata"]["word"]
    assert (sample.prompt, sample.references) == (f"{word}>", (word[::-1],))
    listed = reasoning("countdown", prompt="{target}: {numbers}").load("train")[0]
    metadata = listed.columns["metadata"]
    assert listed.prompt == f"{metadata['target']}: {', '.join(map(str, metadata['numbers']))}"
    with pytest.raises(UserError, match=r"'prompt': a problem of 'gcd' has no 'wrod'"):
        reasoning("gcd", prompt="{wrod}").load("train")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dataset": "countdwn"}, r"there is no data set 'countdwn': did you mean 'countdown'\?"),
        (
            {"dataset": "gcd", "max_numbrs": 3},
            r"'gcd' has no option 'max_numbrs': did you mean 'max_numbers'\?",
        ),
        ({"dataset": "gcd", "size": 3}, r"'gcd' has no option 'size'"),
        ({"dataset": "gcd", "min_numbers": 9, "max_numbers": 2}, r"'gcd' refuses its options: "),
        (
            {"dataset": "gcd", "train_samples": 0},
            r"'train_samples' \(it is 0\): .* at least 1",
        ),
        (
            {"dataset": "gcd", "response": "none"},
            r"'response' \(it is 'none'\): it must hold \{answer\} once",
        ),
        ({"dataset": "gcd", "response": "{steps}\n= {answer}"}, r"the steps of 'gcd' cannot be written"),
        ({"dataset": "countdown", "response": "{steps} {answer}"}, r"must stand what tells them apart"),
        ({"dataset": "gcd", "prompt": "{question"}, r"option 'prompt'"),
        ({"dataset": "gcd", "test_samples": 10**12}, r"'test_samples' .* at most 10000000"),
        ({"dataset": "gcd", "seed": -1}, r"option 'seed' \(it is -1\): .* at least 0"),
        ({}, r"task 'reasoning' needs the option 'dataset'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        build_task("reasoning", options)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    with pytest.raises(
        UserError, match=r"needs the package reasoning-gym: pip install 'rlgf\[reasoning\]'\.$"
    ):
        build_task("reasoning", {"dataset": "gcd"})


def test_a_date_can_be_a_seed() -> None:
    task = build_task("reasoning", {"dataset": "gcd", "seed": 20261129, "train_samples": 2})
    assert len(task.load("train")) == 2
