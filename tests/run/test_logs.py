"""The log on disk: half lines and foreign ones."""

from __future__ import annotations

import shutil
from pathlib import Path

from resuming import metrics, refusal

from resume_script import toy_trainer
from rlgf.run.trainer import Trainer


def test_a_half_written_line_of_the_log_is_dropped(finished: Trainer, run: Path) -> None:
    shutil.rmtree(run / "checkpoints" / "000004")
    log = run / "metrics.jsonl"
    log.write_text(log.read_text() + '{"update": 1, "rew')
    toy_trainer(run).train(resume=True)
    assert metrics(run) == metrics(finished.config.folder)


def test_a_foreign_line_among_the_metrics_is_named(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write("nonsense\n")
    assert "metrics.jsonl has a line that rlgf did not write" in refusal(toy_trainer(run))
