"""A run is followed until it ends."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_toys import run_folder
from rich.console import Console
from transformers import TrainerCallback
from typer.testing import CliRunner

from rlgf.cli import app
from rlgf.errors import UserError
from rlgf.run.alive import FolderLock, goes_on
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from rlgf.watch.follow import follow

ROOT = Path(__file__).parents[2]
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


def test_it_follows_until_the_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_folder(tmp_path / "run", updates=1, finished=False)
    held = FolderLock(folder)

    def train() -> Iterator[None]:
        yield
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"update": 2, "algorithm": "lols", "reward": 0.875}) + "\n")
        yield
        held.release()
        yield

    goes = train()
    next(goes)
    monkeypatch.setattr("rlgf.watch.follow.time.sleep", lambda seconds: next(goes))
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=40)
    follow(folder, console)
    assert not goes_on(folder)
    assert isinstance(console.file, io.StringIO)
    first, _, last = _COLOUR.sub("", console.file.getvalue()).partition("0.875")
    assert "1 of 1" in first
    assert "stopped" in last


def test_a_terminal_that_cannot_be_written_over_gets_one_view(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It showed nothing until the run had ended."""
    held = FolderLock(run_folder(tmp_path / "run", updates=1, finished=False))
    monkeypatch.setattr("rlgf.watch.follow.time.sleep", lambda seconds: held.release())
    console = Console(file=io.StringIO(), force_terminal=True, width=100, _environ={"TERM": "dumb"})
    follow(tmp_path / "run", console)
    held.release()
    assert isinstance(console.file, io.StringIO)
    assert "1 of 1" in console.file.getvalue()
    assert "stopped" not in console.file.getvalue()


def test_who_watches_leaves_the_machine_to_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = FolderLock(run_folder(tmp_path / "run", updates=50, finished=False))
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 5:
            held.release()

    monkeypatch.setattr("rlgf.watch.follow.time.sleep", sleep)
    begun = time.perf_counter()
    follow(tmp_path / "run", Console(file=io.StringIO(), force_terminal=True, width=100), every=0.0)
    looked = time.perf_counter() - begun
    assert sum(waits) > 4 * looked, "the last view and the terminal's part of it are not counted"


def test_a_real_run_is_seen_to_go_on_and_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    seen = []

    class Looks(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            seen.append(goes_on(tmp_path / "run"))

    changes = {"output": str(tmp_path / "run"), "training": {"updates": 2}}
    trainer = Trainer(
        ["examples/letters.yaml", changes], display=Display(Console(quiet=True)), callbacks=[Looks()]
    )
    trainer.train()
    assert seen == [True, True]
    assert not goes_on(tmp_path / "run")
    done = CliRunner().invoke(app, ["watch", str(tmp_path / "run")], catch_exceptions=False)
    assert done.exit_code == 0
    assert "letters  rloo" in done.output
    assert "2 of 2" in done.output
    assert "finished in" in done.output
    assert "[policy]" in done.output


def test_one_run_is_followed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run_folder(tmp_path / name)
    console = Console(file=io.StringIO(), width=100)
    with pytest.raises(UserError, match="holds 2 runs, of which 0 go on: give the folder of one"):
        follow(tmp_path, console)
    held = FolderLock(tmp_path / "two")
    follow(tmp_path, console)
    held.release()
    assert isinstance(console.file, io.StringIO)
    assert "two" in console.file.getvalue()
    with pytest.raises(UserError, match="there is no"):
        follow(tmp_path / "three", console)


def test_it_begins_at_once() -> None:
    """Seconds go by before torch is imported, and nothing here computes with it."""
    script = "import sys, rlgf.watch.follow; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
