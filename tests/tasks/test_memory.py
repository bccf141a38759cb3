"""Data that Python hands over is read as files are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest

from rlgf.errors import UserError
from rlgf.tasks.memory import MemoryTask
from rlgf.types import Message, Sample


def test_samples_are_taken_as_they_are_and_the_split_before_stands_in() -> None:
    train = [Sample("a", ("b",))]
    task = MemoryTask(train=train, validation=None, test=[Sample("c")])
    assert task.load("train") == task.load("validation") == train
    assert task.load("test") == [Sample("c")]
    held_out = MemoryTask(train=train, validation=[Sample("d")])
    assert held_out.load("test") == [Sample("d")], "the texts that were not trained on"
    assert [held_out.source("test"), MemoryTask(train=train).source("test")] == ["validation", "train"]


@pytest.mark.parametrize("asked", ["Question: a", [{"role": "user", "content": "Question: a"}]])
def test_messages_beside_a_prompt_are_a_column_like_any_other(asked: Any) -> None:
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (sample,) = MemoryTask(train=[{"prompt": asked, "messages": talk, "solution": "b"}]).load("train")
    told = sample.prompt or sample.messages[0].content
    assert (told, sample.references) == ("Question: a", ())
    assert sample.columns == {"messages": talk, "solution": "b"}
    options = {"reference_field": "messages"}
    (sample,) = MemoryTask(train=[{"prompt": "a", "messages": talk}]).reading(options).load("train")
    assert sample.references == ("b",)


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
        ("a.jsonl", r"'train' is the text 'a.jsonl': .* task: {name: data, options: {train: a.jsonl}}\.$"),
        ("owner/name", r"'train' is the text 'owner/name': .* options: {data: owner/name}}\.$"),
        ("https://x.org/a.jsonl", "'train' is the text .*: download it, and give its rows as a list"),
        (
            datasets.DatasetDict(test=datasets.Dataset.from_list([{"prompt": "a"}])),
            r"'train' is a dictionary of the splits test: give one of them, such as train=data\['test'\]\.$",
        ),
        (
            datasets.Dataset.from_list([{"prompt": "a"}]).to_iterable_dataset(),
            r"a stream can be made one with list\(data.take\(1000\)\)\.$",
        ),
        ({"prompt": "a"}, "'train' must be a data set or a list .it is a dict"),
        (
            {"prompt": ["a"]},
            r"'train' is a dictionary of columns: give datasets.Dataset.from_dict\(train\)\.$",
        ),
        (["a"], "'train' must hold dictionaries"),
        (
            datasets.Dataset.from_list([{"prompt": "a"}]).with_format("pandas"),
            r"'train' must hold dictionaries .* \(its first entry is prompt 0 a\)\.$",
        ),
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


def test_half_a_character_in_any_row_is_named_when_it_is_loaded() -> None:
    """Beyond the first rows it would end the run in its middle."""
    rows = [*[{"prompt": "a"}] * 300, {"prompt": "a\ud83d"}]
    with pytest.raises(UserError, match=r"row 300 of 'train': 'prompt' has half of a surrogate pair"):
        MemoryTask(train=rows).load("train")


def test_a_row_of_another_kind_than_the_first_is_named() -> None:
    with pytest.raises(
        UserError, match=r"row 1 of 'train' must be a dictionary, as the first one is \(it is 'b'\)"
    ):
        MemoryTask(train=[{"prompt": "a"}, "b"]).load("train")


def test_lists_may_be_arrays_as_in_a_data_set_with_a_format_of_numpy() -> None:
    data = datasets.Dataset.from_list([{"prompt": "a", "references": ["b", "c"]}]).with_format("numpy")
    assert MemoryTask(train=data).load("train")[0].references == ("b", "c")
    assert MemoryTask(train=[{"prompt": "a", "references": ("b", "c")}]).load("train")[0].references == (
        "b",
        "c",
    )


def test_chats_may_be_arrays_as_pandas_reads_them_from_parquet(tmp_path: Path) -> None:
    pair = {
        "chosen": [{"role": "assistant", "content": "b"}],
        "rejected": [{"role": "assistant", "content": "c"}],
    }
    rows = [{"prompt": [{"role": "user", "content": "a"}], **pair}]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    records = pandas.read_parquet(tmp_path / "a.parquet").to_dict("records")
    (sample,) = MemoryTask(train=records).load("train")
    assert (sample.messages, sample.references, sample.rejected) == ((Message("user", "a"),), ("b",), "c")


def test_numbers_of_arrays_stand_in_a_template_as_numbers() -> None:
    data = datasets.Dataset.from_list([{"n": 3}]).with_format("torch")
    assert MemoryTask(train=data, options={"template": "{n}?"}).load("train")[0].prompt == "3?"


def test_a_table_of_pandas_says_how_it_is_given() -> None:
    table = pandas.DataFrame({"prompt": ["a"]})
    with pytest.raises(UserError, match=r"'train' is a table of pandas: give train.to_dict\('records'\)"):
        MemoryTask(train=table)


def test_the_options_of_the_task_data_say_how_rows_are_read() -> None:
    rows = [{"question": "a", "answer": "b", "chosen": "c"}]
    options = {"prompt_field": "question", "reference_field": "answer", "train": "another.jsonl"}
    (sample,) = MemoryTask(train=rows).reading(options).load("train")
    assert (sample.prompt, sample.references) == ("a", ("b",))
    with pytest.raises(UserError, match=r"task 'data'.* 'promt_field'"):
        MemoryTask(train=rows).reading({"promt_field": "question"}).load("train")


def test_conversations_are_read_as_messages_are() -> None:
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]
    (sample,) = MemoryTask(train=[{"conversations": turns}]).load("train")
    assert [message.content for message in sample.messages] == ["hi"]
    assert sample.references == ("yo",)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [{"prompt": "a"}, {"prompt": "b", "references": ["q"]}],
            "row 0 of 'train' has no field 'references': give it to every row, or to none. Fields: prompt.",
        ),
        (
            [{"prompt": "a", "chosen": "b"}, {"prompt": "b", "chosen": "c", "rejected": "d"}],
            "row 0 of 'train' has no field 'rejected': give it to every row, or to none. Fields: chosen, prompt.",
        ),
        (
            [{"question": "a"}],
            "row 0 of 'train' has no field 'prompt': rename the column that holds it to 'prompt', or name it in the "
            "recipe as task: {name: data, options: {prompt_field: ...}}. Fields: question.",
        ),
    ],
)
def test_a_column_that_a_row_lacks_is_named_with_what_to_do_in_python(
    rows: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(UserError) as refused:
        MemoryTask(train=rows).load("train")
    assert str(refused.value) == said
