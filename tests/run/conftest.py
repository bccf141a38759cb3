"""Runs that several files of this folder look at; each is trained once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rlgf.run.trainer import Trainer


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A finished run of four updates; tests work on copies of its folder."""
    from resume_script import toy_trainer

    trainer = toy_trainer(tmp_path_factory.mktemp("finished") / "run")
    trainer.train()
    return trainer


@pytest.fixture
def run(finished: Trainer, tmp_path: Path) -> Path:
    return shutil.copytree(finished.config.folder, tmp_path / "run")


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A run in which nothing fails, as those of `failures`."""
    from failures import SELDOM

    from resume_script import toy_trainer

    trainer = toy_trainer(tmp_path_factory.mktemp("straight") / "run", **SELDOM)
    trainer.train()
    return trainer
