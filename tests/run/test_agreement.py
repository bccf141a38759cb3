"""What must be the same before a run goes on, and what may change."""

from __future__ import annotations

from pathlib import Path

import pytest
from resuming import equal, state

from resume_script import toy_trainer
from rlgf.errors import UserError


def test_a_run_whose_schedules_do_not_move_is_extended_to_what_a_longer_one_is(tmp_path: Path) -> None:
    steady = {"update": {"learning_rate": {"start": 5e-3, "end": 5e-3}}}
    long = toy_trainer(tmp_path / "long", **steady)
    long.train()
    toy_trainer(tmp_path / "short", **steady, training={"updates": 2}).train()
    extended = toy_trainer(tmp_path / "short", **steady)
    extended.train(resume=True)
    assert equal(state(extended), state(long))


def test_a_longer_run_says_which_schedules_move(tmp_path: Path) -> None:
    toy_trainer(tmp_path, training={"updates": 2}).train()
    extended = toy_trainer(tmp_path)
    said: list[str] = []
    extended.display.note = said.append
    extended.train(resume=True)
    assert extended.progress.update == 4
    assert "The run had 2 updates and now has 4; update.learning_rate from here on as in a run of 4." in said


def test_a_run_cannot_have_fewer_updates_than_are_finished(tmp_path: Path) -> None:
    toy_trainer(tmp_path).train()
    with pytest.raises(UserError, match=r"'training.updates' is 3, and the checkpoint has finished 4"):
        toy_trainer(tmp_path, training={"updates": 3}).train(resume=True)
