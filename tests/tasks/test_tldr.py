"""TL;DR in both of its formats."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from rlgf.errors import UserError
from rlgf.tasks import build_task
from rlgf.types import Sample


def write(path: Path, *records: Any) -> Path:
    text = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize(
    ("row", "sample"),
    [
        (
            {"prompt": "POST: a b\n\nTL;DR:", "completion": " short", "id": 3},
            Sample("POST: a b\n\nTL;DR:", (" short",), {"id": 3}, cue="\n\nTL;DR:"),
        ),
        (
            {"prompt": "POST: a b \nTL;DR: ", "label": "short\n"},
            Sample("POST: a b \nTL;DR:", (" short",), {}, cue=" \nTL;DR:"),
        ),
    ],
    ids=["trl-lib", "CarperAI"],
)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_tldr_reads_both_formats(
    tmp_path: Path, row: dict[str, Any], sample: Sample, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    file = tmp_path / f"a.{kind}"
    if kind == "parquet":
        datasets.Dataset.from_list([row]).to_parquet(str(file))
    else:
        write(file, row)
    assert list(build_task("tldr", {"train": str(file)}).load("train")) == [sample]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"prompt": "a TL;DR:", "summary": "b"},
            r"line 1 has no field 'label': .*'completion'. Fields: prompt, s",
        ),
        ({"post": "a", "label": "b"}, r"line 1 has no field 'prompt'. Fields: label, post"),
        (
            {"prompt": "a", "label": "b"},
            r"line 1: 'prompt' must be a text that ends in 'TL;DR:' \(it is 'a'\)",
        ),
        ({"prompt": "a TL;DR:", "label": " "}, r"line 1: 'label' must be a summary in words \(it is ' '\)"),
        ({"prompt": "a TL;DR:", "completion": None}, r"line 1: 'completion' must be a summary in words"),
    ],
)
def test_tldr_says_what_is_wrong_with_a_row(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    task = build_task("tldr", {"train": str(write(tmp_path / "a.jsonl", row))})
    with pytest.raises(UserError, match=message):
        task.load("train")
    with pytest.raises(UserError, match="task 'tldr' has no file for the split 'test'"):
        task.load("test")
