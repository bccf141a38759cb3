"""Whatever ends a run, what it has learned is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from failures import SELDOM, goes_on, in_third, raising
from resuming import checkpoints, equal, state

from resume_script import toy_trainer
from rlgf.errors import UserError
from rlgf.run.trainer import Trainer


@pytest.mark.parametrize(
    "error",
    [
        ValueError("my parser failed"),
        MemoryError(),
        SystemExit(3),
        KeyboardInterrupt(),
        UserError("it wants a number."),
        type("MyError", (BaseException,), {})("odd"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_of_any_type_saves_the_last_finished_update(
    tmp_path: Path, straight: Trainer, error: BaseException
) -> None:
    trainer = toy_trainer(tmp_path, in_third(raising(error)), **SELDOM)
    with pytest.raises(type(error)) as caught:
        trainer.train()
    assert caught.value is error
    assert error.__notes__ == ["Saved after update 2; --resume goes on."]
    assert checkpoints(tmp_path) == ["000002"]
    goes_on(tmp_path, straight)


def test_a_metric_that_fails_saves_and_is_asked_again(tmp_path: Path, straight: Trainer) -> None:
    trainer = toy_trainer(tmp_path, **SELDOM)

    def metric(*arguments: Any, **columns: Any) -> dict[str, float]:
        if trainer.progress.update == 2:
            raise ZeroDivisionError("no words")
        return {}

    trainer.parts.evaluator.metrics = {**trainer.parts.evaluator.metrics, "mine": metric}
    with pytest.raises(ZeroDivisionError, match="no words"):
        trainer.train()
    assert checkpoints(tmp_path) == ["000002"]
    goes_on(tmp_path, straight)


def test_a_tracker_that_fails_saves_what_was_learned(
    tmp_path: Path, straight: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlgf.run.logs import MetricsLog

    write = MetricsLog.write

    def failing(log: MetricsLog, update: int, numbers: dict[str, Any]) -> None:
        write(log, update, numbers)
        if update == 3:
            raise ConnectionError("the tracker is gone")

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "write", failing)
        with pytest.raises(ConnectionError):
            toy_trainer(tmp_path, **SELDOM).train()
    assert checkpoints(tmp_path) == ["000003"]
    goes_on(tmp_path, straight)


def test_what_cannot_be_written_beside_the_metrics_leaves_their_line(
    tmp_path: Path, straight: Trainer
) -> None:
    samples = tmp_path / "samples.jsonl"

    def fill_the_disk() -> None:
        samples.unlink()
        samples.symlink_to("/dev/full")

    with pytest.raises(UserError, match=f"the disk is full: samples could not be written to {tmp_path}"):
        toy_trainer(tmp_path, in_third(fill_the_disk), **SELDOM).train()
    assert checkpoints(tmp_path) == ["000003"]
    samples.unlink()
    goes_on(tmp_path, straight)


def test_what_changes_no_result_may_change(tmp_path: Path, straight: Trainer) -> None:
    trainer = toy_trainer(tmp_path, in_third(raising(ValueError("stop"))), **SELDOM)
    with pytest.raises(ValueError, match="stop"):
        trainer.train()
    training = {
        "checkpoint_every": 1,
        "sample_every": 1,
        "trackers": ["tensorboard"],
        "process_timeout": 7.0,
    }
    changes = {"training": training, "evaluation": {"every": 1, "metrics": []}, "name": "other"}
    resumed = toy_trainer(tmp_path, **changes)
    resumed.train(resume=True)
    assert equal(state(resumed), state(straight))
