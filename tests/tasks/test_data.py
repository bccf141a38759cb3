"""Data of one's own: files and data sets of the hub, by column names."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from pair_files import PAIR, pair_file
from written_files import refused, written

from rlgf.errors import UserError
from rlgf.tasks import build_task
from rlgf.types import Sample


def test_pairs_are_read_from_a_file(tmp_path: Path) -> None:
    task = build_task("data", pair_file(tmp_path / "a.jsonl", PAIR | {"id": 7}))
    assert task.load("train")[:] == [
        Sample("ab", ("aaaaa",), {"chosen": "aaaaa", "rejected": "bcd", "id": 7}, rejected="bcd")
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rejected": "aaaaa"}, r"a\.jsonl, line 2: 'chosen' and 'rejected' are identical"),
        ({"rejected": 3}, r"line 2: 'rejected' must be a text or the messages of a chat \(it is 3\)"),
        ({"chosen": ["a", "b"]}, r"line 2: a pair needs one text to compare with 'rejected' \(there are 2\)"),
        ({"chosen": ""}, r"line 2: 'chosen' has an empty reference"),
    ],
)
def test_a_pair_that_is_none_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_task("data", pair_file(tmp_path / "a.jsonl", PAIR, PAIR | change)).load("train")
    whole = pair_file(tmp_path / "c.jsonl", {"chosen": "ab", "rejected": "ac"})
    with pytest.raises(UserError, match=r"no field 'prompt': a pair needs a column with its prompt, which"):
        build_task("data", whole).load("train")
    missing = pair_file(tmp_path / "b.jsonl", {"prompt": "a", "chosen": "b"})
    with pytest.raises(
        UserError, match=r"no field 'rejected': set the option 'rejected_field'. Fields: chosen"
    ):
        build_task("data", missing).load("train")


def write(path: Path, *lines: Any) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def test_data_reads_prompts_references_and_columns(tmp_path: Path) -> None:
    first = write(tmp_path / "a", {"prompt": "x", "references": ["y", "z"], "n": 1}, "")
    second = write(tmp_path / "b", {"prompt": "u\u2028v", "references": "w"})
    task = build_task("data", {"train": [str(first), str(second)], "test": str(second)})
    expected = [Sample("x", ("y", "z"), {"n": 1}), Sample("u\u2028v", ("w",), {})]
    assert list(task.load("train")) == expected
    assert task.load("test")[:] == expected[1:]


def test_data_fields_have_the_names_that_the_options_give(tmp_path: Path) -> None:
    file = str(write(tmp_path / "a", {"question": "x", "answer": "y"}))
    options = {"train": file, "prompt_field": "question"}
    columns = {"question": "x", "answer": "y"}
    # Rewards find columns by their names, also those that prompt and reference are made from.
    assert build_task("data", options | {"reference_field": "answer"}).load("train")[:] == [
        Sample("x", ("y",), columns)
    ]
    without = build_task("data", options | {"reference_field": None}).load("train")[:]
    assert without == [Sample("x", (), columns)]


def test_a_file_of_prompts_alone_needs_no_option(tmp_path: Path) -> None:
    file = str(write(tmp_path / "a.jsonl", {"prompt": "x", "n": 1}, {"prompt": "y", "n": 2}))
    samples = build_task("data", {"train": file}).load("train")
    assert samples[:] == [Sample("x", (), {"n": 1}), Sample("y", (), {"n": 2})]
    mixed = str(write(tmp_path / "b.jsonl", {"prompt": "x"}, GOOD))
    assert build_task("data", {"train": mixed}).load("train")[1] == Sample("x", ("y",)), "none is lost"
    for options in ({"reference_field": "references"}, {"rejected_field": "n"}):
        with pytest.raises(UserError, match="line 1 has no field 'references'"):
            build_task("data", {"train": file} | options).load("train")


GOOD = {"prompt": "x", "references": "y"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"a\.jsonl is empty"),
        ([GOOD, {"text": "x", "references": "y"}], r"line 2 has no field 'prompt'.*Fields: references, text"),
        ([GOOD, "", {"prompt": "x"}], r"line 3 has no field 'references'.*'reference_field'.*Fields: prompt"),
        (
            [{"messages": []}],
            "set the option 'reference_field' to 'messages', or to null where that is no ref",
        ),
        (
            [{"prompt": "x", "completion": "y"}],
            "set the option 'reference_field' to 'completion', or to null",
        ),
        ([GOOD, '{"prompt": '], r"line 2 is not valid JSON"),
        ([["x"]], r"line 1 must hold a JSON object"),
        (
            [{"prompt": 3, "references": "y"}],
            r"line 1: 'prompt' must be a text or the messages of a chat \(it is 3\)",
        ),
        ([{"prompt": "x", "references": [4]}], r"line 1: 'references' must be a text or a list of texts"),
        ([GOOD, {"prompt": "x", "references": []}], r"line 2: 'references' has an empty reference"),
        ([{"prompt": "x", "references": ["a", " "]}], r"line 1: 'references' has an empty reference"),
    ],
)
def test_data_says_which_line_is_wrong(tmp_path: Path, lines: list[Any], message: str) -> None:
    file = write(tmp_path / "a.jsonl", *lines)
    with pytest.raises(UserError, match=message) as caught:
        build_task("data", {"train": str(file)}).load("train")
    assert str(file) in str(caught.value)


ROWS = [{"prompt": f"p{i}", "references": f"r{i}", "n": i} for i in range(5)]


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl", "jsonl.gz"])
def test_data_of_every_kind_gives_the_same_samples(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    file = tmp_path / f"a.{kind}"
    table = datasets.Dataset.from_list(ROWS)
    if kind.startswith("jsonl"):
        text = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
        file.write_bytes(gzip.compress(text) if kind.endswith("gz") else text)
    else:
        getattr(table, f"to_{kind}")(str(file))
    samples = build_task("data", {"train": str(file)}).load("train")
    number = str if kind == "csv" else int  # a cell of a CSV file is a text
    assert list(samples) == [Sample(f"p{i}", (f"r{i}",), {"n": number(i)}) for i in range(5)]
    assert samples[-1] == samples[4]
    assert samples[1:3] == [samples[1], samples[2]]
    with pytest.raises(IndexError):
        samples[5]


def test_a_template_makes_the_prompt_from_columns(tmp_path: Path) -> None:
    file = str(write(tmp_path / "a", {"title": "T", "post": "P {x}", "summary": "S", "id": 3}))
    options = {"train": file, "template": "{title}: {post}\nTL;DR:", "reference_field": "summary"}
    columns = {"title": "T", "post": "P {x}", "summary": "S", "id": 3}
    assert build_task("data", options).load("train")[:] == [Sample("T: P {x}\nTL;DR:", ("S",), columns)]
    with pytest.raises(
        UserError,
        match=r"no field 'body': give every row the columns of 'template'.*id, post, summary, title",
    ):
        build_task("data", options | {"template": "{body}"}).load("train")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_an_empty_cell_as_a_reference_is_refused_with_its_row(tmp_path: Path) -> None:
    refused(
        written(tmp_path / "a.csv", "prompt,references\nx,y\nz,\n"),
        "line 3",
        "empty reference",
        reference_field="references",
    )
