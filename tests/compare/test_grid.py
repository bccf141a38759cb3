"""A whole grid on toys: it runs once, goes on where it stopped, and ends in tables and pictures."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
from pathlib import Path

import pytest
from rich.console import Console

from rlgf.compare.comparison import Comparison
from rlgf.compare.finished import FinishedRuns
from rlgf.compare.grid import run_comparison
from rlgf.errors import UserError
from rlgf.evaluation.files import WATCHED
from rlgf.run import whole_folder
from rlgf.run.display import Display
from rlgf.run.loop import TrainingLoop

QUIET = Display(Console(quiet=True))


def test_several_processes_do_not_write_the_same_tables(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        UserError, match="a comparison runs in one process, and there are 2: start it without"
    ):
        run_comparison(comparison, display=QUIET)
    assert not comparison.runs.exists()


def test_a_grid_ends_in_tables_and_pictures_and_runs_nothing_twice(comparison: Comparison) -> None:
    run_comparison(comparison, display=QUIET)
    results = comparison.results
    with (results / "toy.csv").open() as file:
        rows = {row["who"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["start", "guide", "reference text", "ppo", "ppo++"]
    assert rows["reference text"]["reward"] == "1.0"
    runs = FinishedRuns(comparison).read()
    mean = sum(runs["plain", "ppo", seed].totals["reward"] for seed in (0, 1)) / 2
    assert float(rows["ppo"]["reward"]) == pytest.approx(mean)
    difference = sum(
        runs["plain", "ppo++", seed].totals["reward"] - runs["plain", "ppo", seed].totals["reward"]
        for seed in (0, 1)
    )
    assert float(rows["ppo++"]["reward minus ppo"]) == pytest.approx(difference / 2)
    assert "| ppo++ | 2 |" in (results / "toy.md").read_text()
    assert float(rows["ppo"]["guide tokens"]) == 0 < float(rows["ppo++"]["guide tokens"])
    assert (
        float(rows["ppo"]["policy tokens"])
        == sum(r.tokens["policy"] for (_, n, _), r in runs.items() if n == "ppo") / 2
    )
    assert json.loads((results / "toy.json").read_text())[0]["who"] == "start"
    assert (results / "toy-plain.png").stat().st_size > 1000
    assert "[toy.html](toy.html)" in (results / "toy.md").read_text()

    written = {path: path.stat().st_mtime_ns for path in comparison.runs.rglob("summary.json")}
    assert len(written) == 4
    began = FinishedRuns(comparison).authors_file("plain").stat().st_mtime_ns
    assert began < min(written.values()), "a grid that is interrupted has the row of its start"
    assert len(list(comparison.runs.rglob("policy/model.safetensors"))) == 4
    assert not list(comparison.runs.rglob("checkpoints"))
    run_comparison(comparison, display=QUIET)
    assert {path: path.stat().st_mtime_ns for path in comparison.runs.rglob("summary.json")} == written


def test_what_start_and_guides_measured_is_written_in_one_step(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(place: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(whole_folder, "_sync", full)
    with pytest.raises(OSError, match="No space"):
        run_comparison(comparison, display=QUIET)
    assert not FinishedRuns(comparison).authors_file("plain").exists(), "a torn file cannot be read again"


def test_a_run_that_fails_leaves_the_others_their_place(comparison: Comparison, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("def fails(completions, **kwargs):\n    return [float('nan')] * len(completions)\n")
    base = json.dumps({"reward": f"{own}:fails"})
    (tmp_path / "fails.yaml").write_text(base)
    # Start and guide are measured by the first one's recipe.
    algorithms = {"ppo++": ("algorithm=ppo++",), "ppo": ("algorithm=ppo", str(tmp_path / "fails.yaml"))}
    grid = comparison.model_copy(update={"algorithms": algorithms, "seeds": 1, "baseline": "ppo++"})
    with pytest.raises(UserError, match=r"1 of 2 runs failed, and are not in the tables: plain ppo 0\."):
        run_comparison(grid, display=QUIET)
    assert "| ppo++ | 1 |" in (grid.results / "toy.md").read_text()
    own.write_text("def fails(completions, **kwargs):\n    return [0.5] * len(completions)\n")
    run_comparison(grid, display=QUIET)
    assert "| ppo | 1 | 0.5" in (grid.results / "toy.md").read_text()


def test_a_comparison_needs_neither_references_nor_a_judge(comparison: Comparison, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "ab"}\n')
    files = dict.fromkeys(("train", "validation", "test"), str(tmp_path / "rows.jsonl"))
    task = {"task": {"name": "data", "options": {**files, "reference_field": None}}}
    (tmp_path / "task.yaml").write_text(json.dumps(task))
    bare = comparison.model_copy(
        update={
            "settings": {"plain": (*comparison.settings["plain"], str(tmp_path / "task.yaml"))},
            "seeds": 1,
            "metrics": WATCHED,
        }
    )
    run_comparison(bare, display=QUIET)
    lines = (comparison.results / "toy.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[0].startswith(
        "| | seeds | reward | kl | output perplexity | reward minus ppo | policy tokens |"
    )
    assert [line.split("|")[1].strip() for line in table[2:]] == ["start", "guide", "ppo", "ppo++"]


def test_a_report_without_runs_says_so(comparison: Comparison) -> None:
    with pytest.raises(UserError, match="no run of 'toy' has finished"):
        run_comparison(comparison, report_only=True, display=QUIET)


def test_a_comparison_that_is_stopped_says_how_it_goes_on(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = TrainingLoop._step

    def stopped(loop: TrainingLoop) -> dict[str, float | str]:
        os.kill(os.getpid(), signal.SIGINT)
        return step(loop)

    monkeypatch.setattr(TrainingLoop, "_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_comparison(comparison)
    said = capsys.readouterr().out
    assert "Stopped and saved after update 1; the comparison goes on where it is run again." in said
    assert "--resume" not in said
