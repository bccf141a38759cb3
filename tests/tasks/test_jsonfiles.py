"""Rows of JSON files, of which some hold what JSON should not."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
from written_files import load, written

from rlgf.evaluation.files import summarize
from rlgf.metrics import MetricResult


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_columns_that_are_not_finite_are_kept_and_written_as_null(tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl", '{"prompt": "x", "n": NaN, "many": [1, -Infinity]}\n')
    (sample,) = load(file, reference_field=None)
    assert str(sample.columns["n"]) == "nan"
    summarize([sample], ["text"], {"words": MetricResult.mean([1.0])}).save(tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    record = json.loads(lines[1], parse_constant=lambda name: pytest.fail(name))
    assert record["columns"] == {"n": None, "many": [1, None]}


def test_half_a_surrogate_pair_is_replaced_and_counted(tmp_path: Path) -> None:
    lines = [
        r'{"prompt": "whole \ud83d\ude00"}',
        r'{"prompt": "smile \ud83d"}',
        r'{"prompt": "a text about \\ud83d"}',
        r'{"prompt": "\ude00 and \ud83d\ud83d\ude00", "more": {"\udc00": ["\ud800"]}}',
    ]
    file = written(tmp_path / "a.jsonl", "\n".join(lines))
    with pytest.warns(
        UserWarning, match=r"a\.jsonl, line 2: half of a surrogate pair.*U\+FFFD \(2 such lines"
    ):
        samples = load(file, reference_field=None)
    found = ["whole 😀", "smile \ufffd", r"a text about \ud83d", "\ufffd and \ufffd😀"]
    assert [sample.prompt for sample in samples] == found
    assert samples[3].columns == {"more": {"\ufffd": ["\ufffd"]}}
