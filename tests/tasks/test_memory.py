"""Data that Python hands over is read as files are."""

from __future__ import annotations

from typing import Any

import datasets
import pandas
import pytest

from rlgf.errors import UserError
from rlgf.tasks.memory import MemoryTask
from rlgf.types import Sample


def test_samples_are_taken_as_they_are_and_training_data_stands_in() -> None:
    train = [Sample("a", ("b",))]
    task = MemoryTask(train=train, validation=None, test=[Sample("c")])
    assert task.load("train") == task.load("validation") == train
    assert task.load("test") == [Sample("c")]


@pytest.mark.parametrize(
    ("row", "references", "rejected"),
    [
        ({"prompt": "a", "references": ["b", "c"]}, ("b", "c"), None),
        ({"prompt": "a", "completion": "b"}, ("b",), None),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, ("b",), "c"),
        ({"prompt": "a", "n": 1}, (), None),
    ],
)
def test_columns_are_found_by_the_names_that_data_sets_use(
    row: dict[str, Any], references: tuple[str, ...], rejected: str | None
) -> None:
    for data in ([row], datasets.Dataset.from_list([row])):
        (sample,) = MemoryTask(train=data).load("train")
        assert (sample.prompt, sample.references, sample.rejected) == ("a", references, rejected)
    assert MemoryTask(train=[{"prompt": "a", "n": 1}]).load("train")[0].columns["n"] == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            iter([{"prompt": "a"}]),
            r"'train' must be a data set or a list .* can be made one with list\(...\)",
        ),
        ("a.jsonl", "'train' must be a data set or a list .it is a str"),
        ({"prompt": "a"}, "'train' must be a data set or a list .it is a dict"),
        (["a"], "'train' must hold dictionaries"),
    ],
)
def test_what_is_no_data_set_is_refused_at_once(data: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        MemoryTask(train=data)


def test_a_row_that_does_not_fit_is_named_when_it_is_loaded() -> None:
    task = MemoryTask(train=[{"prompt": "a"}, {"promt": "b"}])
    with pytest.raises(UserError, match="row 1 of 'train'"):
        task.load("train")
    with pytest.raises(UserError, match="no split 'tests'"):
        task.load("tests")


def test_a_row_of_another_kind_than_the_first_is_named() -> None:
    with pytest.raises(
        UserError, match=r"row 1 of 'train' must be a dictionary, as the first one is \(it is 'b'\)"
    ):
        MemoryTask(train=[{"prompt": "a"}, "b"]).load("train")


def test_a_table_of_pandas_says_how_it_is_given() -> None:
    table = pandas.DataFrame({"prompt": ["a"]})
    with pytest.raises(UserError, match=r"'train' is a table of pandas: give train.to_dict\('records'\)"):
        MemoryTask(train=table)
