"""From the folders of runs to the file of a report."""

from __future__ import annotations

import json
from pathlib import Path

from page_reader import Reader, lines, unpacked
from report_toys import run_folder
from typer.testing import CliRunner

from resume_script import toy_trainer
from rlgf.cli import app
from rlgf.report.write import write_report


def test_a_real_run_becomes_a_page_with_all_its_samples(tmp_path: Path) -> None:
    toy_trainer(tmp_path / "run", algorithm="ppo++").train()
    result = CliRunner().invoke(app, ["report", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "run" / "report.html").read_text()
    reader = Reader(page)
    written = unpacked(reader)
    kept = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert [s["tokens"] for s in written if s["split"] != "test"] == [s["tokens"] for s in kept]
    prompts = [json.loads(line) for line in lines(reader, "prompts")]
    assert [prompts[s["p"]] for s in written if s["split"] != "test"] == [s["prompt"] for s in kept]
    assert sum(s["split"] == "test" for s in written) == 8
    titles = [json.loads(line)["title"] for line in lines(reader, "charts")]
    assert {"Validation reward", "Clip fraction", "Explained variance", "Reward with help", "Writing"} <= {
        *titles
    }
    assert "the guide begins, the policy goes on" in page


def test_summaries_alone_say_that_samples_are_missing(tmp_path: Path) -> None:
    (tmp_path / "imdb.json").write_text(
        json.dumps([{"setting": "dense", "who": "ppo", "seeds": 5, "reward": 0.8}])
    )
    page = write_report([tmp_path]).read_text()
    assert "its runs, with their curves and samples, are not" in page
    assert "<td>dense</td>" in page
    assert "There are no samples" in page


def test_a_summary_shows_a_dash_where_a_row_lacks_a_column(tmp_path: Path) -> None:
    rows = [
        {"setting": "dense", "who": "start", "seeds": 1, "reward": 0.1},
        {"setting": "dense", "who": "ppo", "seeds": 5, "reward": 0.8, "reward half-width": None, "kl": 0.2},
    ]
    (tmp_path / "imdb.json").write_text(json.dumps(rows))
    page = write_report([tmp_path]).read_text()
    assert "<td>start</td><td>1</td><td>0.1</td><td>-</td><td>-</td>" in page
    assert "<td>ppo</td><td>5</td><td>0.8</td><td>-</td><td>0.2</td>" in page


def test_a_run_without_samples_says_so(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a")
    (folder / "samples.jsonl").unlink()
    assert "training.samples_kept" in write_report([folder]).read_text()


def test_own_code_is_not_executed_to_describe_a_run(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("raise SystemExit('executed')\n")
    loss = {"policy": {"loss": f"{tmp_path}/own.py:loss"}}
    folder = run_folder(tmp_path / "a", algorithm={"name": "mine", "terms": loss})
    page = write_report([folder]).read_text()
    assert "own.py:loss" in page
    assert "did not execute" in page
