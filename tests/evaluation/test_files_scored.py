"""Metrics of texts in a file."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from rlgf.evaluation.files import read_texts, score_file, summarize
from rlgf.guides import ReplayGuide, ReplayGuideConfig, Request
from rlgf.metrics import MetricResult
from rlgf.strict import NamedConfig
from rlgf.types import Sample

PLAIN = [NamedConfig(name=name) for name in ("words", "sari", "distinct")]


def test_what_an_evaluation_saves_can_be_scored_and_replayed(tmp_path: Path) -> None:
    columns = {"concepts": ["x"], "answer": "42", "prefix": "p", "finished": True, "day": date(2020, 1, 2)}
    samples = [Sample("a", ("r s", "t"), columns), Sample("b", ("u",))]
    found = {"words": MetricResult.mean([2.0, 1.0]), "ppl": MetricResult(7.0, [6.0, 8.0])}
    saved = summarize(samples, [" one two", " three"], found)
    assert saved.totals == {"ppl": 7.0, "words": 1.5}
    saved.save(tmp_path / "f.jsonl")
    read = read_texts(tmp_path / "f.jsonl")
    assert read.texts == [" one two", " three"]
    assert read.samples == [Sample("a", ("r s", "t"), columns | {"day": "2020-01-02"}), samples[1]]
    again = score_file(tmp_path / "f.jsonl", PLAIN)
    assert [record["words"] for record in again.records] == [2.0, 1.0]
    assert "ppl" not in again.totals
    guide = ReplayGuide(ReplayGuideConfig(file=tmp_path / "f.jsonl"))
    answers = guide.write([Request("a", 5, 0), Request("b", 5, 0)])
    assert [(answer.text, answer.finished) for answer in answers] == [(" one two", False), (" three", False)]
