"""A run that is killed, interrupted or preempted has saved what it learned."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from failures import SELDOM, goes_on, in_third, raising
from resuming import checkpoints, equal, metrics, state

from faulty_server import FaultyServer, serving
from resume_script import LOLS, toy_trainer
from rlgf.guides import HTTPGuide, HTTPGuideConfig
from rlgf.learning.updater import Updater
from rlgf.run import loop
from rlgf.run.saver import Saver
from rlgf.run.signals import Stopping
from rlgf.run.trainer import Trainer

SCRIPT = Path(__file__).parents[1].joinpath("resume_script.py")


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> None:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == code, output


def stop_in_third_update(folder: Path, seconds: int, number: signal.Signals, code: int) -> None:
    """Send a signal while the third of four updates is under way."""
    process = start(folder, "--pause", "3", str(seconds))
    deadline = time.monotonic() + 120
    while not (folder / "paused").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert [line["update"] for line in metrics(folder)] == [0, 1, 2]
    process.send_signal(number)
    finish(process, code)


def weights_digest(folder: Path) -> str:
    return hashlib.sha256((folder / "policy" / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in this process: what other processes write must be the same bytes."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    toy_trainer(folder, **LOLS).train()
    return folder


@pytest.mark.long
def test_a_killed_process_goes_on_to_the_same_bytes(uninterrupted: Path, tmp_path: Path) -> None:
    stop_in_third_update(tmp_path, 100, signal.SIGKILL, -signal.SIGKILL)
    assert checkpoints(tmp_path) == ["000002"]
    finish(start(tmp_path, "--resume"))
    assert weights_digest(tmp_path) == weights_digest(uninterrupted)
    assert metrics(tmp_path) == metrics(uninterrupted)


@pytest.mark.long
def test_ctrl_c_saves_after_the_update_under_way(uninterrupted: Path, tmp_path: Path) -> None:
    stop_in_third_update(tmp_path, 1, signal.SIGINT, 130)
    assert checkpoints(tmp_path) == ["000002", "000003"]
    toy_trainer(tmp_path, **LOLS).train(resume=True)
    assert weights_digest(tmp_path) == weights_digest(uninterrupted)
    assert metrics(tmp_path) == metrics(uninterrupted)


def interrupt(times: int, at: int = 2) -> Callable[[int], None]:
    def during(update: int) -> None:
        if update == at:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)

    return during


def test_a_trainer_that_was_interrupted_can_go_on(finished: Trainer, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    trainer = toy_trainer(tmp_path, interrupt(1))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert checkpoints(tmp_path) == ["000002"]
    assert signal.getsignal(signal.SIGINT) is handler
    try:
        trainer.train(resume=True)
    except KeyboardInterrupt:
        pytest.fail("stopped again")
    assert equal(state(trainer), state(finished))


def test_a_run_that_is_stopped_in_its_last_update_is_not_tested(finished: Trainer, tmp_path: Path) -> None:
    """So that a comparison, whose run it may be, does not go on with the next one."""
    trainer = toy_trainer(tmp_path, interrupt(1, at=4), evaluation={"every": 8})
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert checkpoints(tmp_path)[-1] == "000004"
    assert not (tmp_path / "summary.json").exists()
    trainer.train(resume=True)
    assert trainer.progress.update == 4
    assert (tmp_path / "summary.json").exists()
    assert equal(state(trainer), state(finished))


@pytest.mark.parametrize("before", [signal.default_int_handler, signal.SIG_IGN])
def test_a_second_ctrl_c_stops_at_once(tmp_path: Path, before: Any) -> None:
    """Also where the shell has the signal ignored, as for its background jobs."""
    trainer = toy_trainer(tmp_path, interrupt(2))
    found = signal.signal(signal.SIGINT, before)
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGINT, found)
    assert trainer.progress.update == 1
    assert checkpoints(tmp_path) == ["000001"], "without the update under way, but nothing finished is lost"


def asked_to_end(folder: Path, number: signal.Signals) -> None:
    """A signal, in an update that goes on until the one before it is saved."""
    os.kill(os.getpid(), number)
    deadline = time.monotonic() + 30
    while not (folder / "checkpoints" / "000002").exists():
        assert time.monotonic() < deadline, "nothing is saved while the update goes on"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_preempted_run_saves_at_once_and_again_after_the_update(
    tmp_path: Path, straight: Trainer, number: signal.Signals
) -> None:
    # Under nohup a hangup would be ignored.
    outside = signal.signal(number, signal.SIG_DFL)
    trainer = toy_trainer(tmp_path, in_third(lambda: asked_to_end(tmp_path, number)), **SELDOM)
    try:
        with pytest.raises(SystemExit) as caught:
            trainer.train()
        assert caught.value.code == 128 + number
        assert checkpoints(tmp_path) == ["000002", "000003"]
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, outside)
    goes_on(tmp_path, straight)


def test_a_ctrl_c_of_a_launcher_is_as_hurried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is passed on to all processes, and those that go on are killed a little later."""

    def of_several(note: Callable[[str], None], *, alone: bool, hurry: Callable[[], None]) -> Stopping:
        return Stopping(note, alone=False, hurry=hurry)

    monkeypatch.setattr(loop, "Stopping", of_several)
    trainer = toy_trainer(tmp_path, in_third(lambda: asked_to_end(tmp_path, signal.SIGINT)), **SELDOM)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert checkpoints(tmp_path) == ["000002", "000003"]


def test_what_is_being_learned_is_not_saved_in_a_hurry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights belong to no update; and what is being saved is not yet learned from."""
    trainer = toy_trainer(tmp_path, **SELDOM)
    update, put, found = Updater.update, Saver._put, list[Any]()

    def learns(updater: Updater, *arguments: Any) -> Any:
        saver.save_early(trainer.progress)
        found.append(checkpoints(tmp_path) if (tmp_path / "checkpoints").exists() else [])
        return update(updater, *arguments)

    def puts(saver: Saver, *arguments: Any) -> None:
        learning = threading.Thread(target=saver.begin_learning)
        learning.start()
        put(saver, *arguments)
        found.append(learning.is_alive())

    trainer.step()
    saver = Saver(trainer.config, trainer.parts, saved=0, goes_on="--resume goes on")
    monkeypatch.setattr(Updater, "update", learns)
    saver.begin(1)
    experience = trainer.assess(trainer.collect())
    saver.begin_learning()
    trainer.learn(experience)
    saver.begin(2)
    monkeypatch.setattr(Saver, "_put", puts)
    saver.save_early(trainer.progress)
    assert found == [[], True]
    assert checkpoints(tmp_path) == ["000002"]


def test_a_launcher_that_ends_all_waits_for_what_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one process of several has died, `torchrun` sends SIGTERM to the others."""
    came: list[int] = []
    outside = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    rescue = Saver.rescue

    def ended(*arguments: Any) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return rescue(*arguments)

    monkeypatch.setattr(Saver, "rescue", ended)
    try:
        with pytest.raises(ValueError, match="gone"):
            toy_trainer(tmp_path, in_third(raising(ValueError("gone"))), **SELDOM).train()
        assert came == []
        os.kill(os.getpid(), signal.SIGTERM)
        assert came == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, outside)
    assert checkpoints(tmp_path) == ["000002"]


def test_a_hangup_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        toy_trainer(tmp_path, in_third(lambda: os.kill(os.getpid(), signal.SIGHUP)), **SELDOM).train()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert checkpoints(tmp_path) == ["000004"]


def test_a_preempted_run_does_not_wait_for_its_guide(tmp_path: Path) -> None:
    algorithm = {"algorithm": {"base": "ppo++", "help": {"probability": 0.9}}, **SELDOM}

    def run(folder: Path, during: Callable[[int], None] = lambda update: None) -> Trainer:
        settings = HTTPGuideConfig(url=server.url, model="letters", cache=None)
        return toy_trainer(folder, during, guide=HTTPGuide(settings), **algorithm)

    def hangs(update: int) -> None:
        if update == 2:
            server.latency = 60.0
            threading.Timer(2.0, sent).start()

    def sent() -> None:
        started.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    started: list[float] = []
    with serving(FaultyServer()) as server, closing(run(tmp_path / "straight")) as straight:
        straight.train()
        with closing(run(tmp_path / "run", hangs)) as stopped, pytest.raises(SystemExit) as caught:
            stopped.train()
        assert time.monotonic() - started[0] < 8
        assert caught.value.code == 128 + signal.SIGTERM
        assert checkpoints(tmp_path / "run") in (["000002"], ["000003"])
        server.latency = 0.0
        with closing(run(tmp_path / "run")) as resumed:
            resumed.train(resume=True)
        # The account of the guide has a clock in it.
        learned = [{**state(trainer), "progress": None} for trainer in (resumed, straight)]
        assert equal(*learned)


@pytest.mark.long
def test_a_preempted_command_ends_with_the_code_of_its_signal(tmp_path: Path) -> None:
    script = Path(__file__).parents[1].joinpath("resume_script.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), "--pause", "3", "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (tmp_path / "paused").exists():
            assert process.poll() is None
            try:
                process.wait(timeout=0.05)
            except subprocess.TimeoutExpired:
                continue
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 128 + signal.SIGTERM
    finally:
        process.kill()
    assert checkpoints(tmp_path) == ["000002", "000003"]
