"""Folders are there whole or not at all, also on a full disk."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from resuming import checkpoints, equal, refusal, state

from resume_script import toy_trainer
from rlgf.errors import UserError
from rlgf.run import checkpoint, whole_folder
from rlgf.run.alive import FolderLock
from rlgf.run.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from rlgf.run.progress import Progress
from rlgf.run.trainer import Trainer


def test_a_checkpoint_that_was_being_written_is_ignored(finished: Trainer, run: Path) -> None:
    folder = run / "checkpoints"
    for update in ("000004", "000006"):
        shutil.copytree(folder / "000004", folder / f".writing-{update}")
        (folder / f".writing-{update}" / "junk").write_text("half")
    shutil.rmtree(folder / "000004")
    resumed = toy_trainer(run)
    resumed.train(resume=True)
    assert equal(state(resumed), state(finished))
    assert not (folder / "000004" / "junk").exists()


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    whole_folder.write_whole(tmp_path / "a.json", "1")
    with pytest.raises(UnicodeEncodeError):
        whole_folder.write_whole(tmp_path / "a.json", "2\ud800")
    assert (tmp_path / "a.json").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"], "nothing is left beside it"


def test_what_a_killed_process_left_is_cleared_unless_another_one_writes(run: Path) -> None:
    folder = run / "checkpoints"
    left = {".writing-000006", ".replaced-000002"}
    kept = {".writing-000006-1", ".mine", "000004"}
    shutil.rmtree(folder / "000002")
    for name in left | kept:
        (folder / name).mkdir(exist_ok=True)
    held = FolderLock(run)
    assert "a run goes on in" in refusal(toy_trainer(run))
    assert {path.name for path in folder.iterdir()} == left | kept
    held.release()
    toy_trainer(run).train(resume=True)
    assert {path.name for path in folder.iterdir()} == kept


def test_what_a_numbered_process_left_is_cleared_once_there_is_a_newer_checkpoint(run: Path) -> None:
    folder = run / "checkpoints"
    for name in (".writing-000004-1", ".replaced-000003-2", ".writing-000006-1"):
        (folder / name).mkdir()
    whole_folder.clear_left(folder)
    assert {path.name for path in folder.iterdir()} == {"000002", "000004", ".writing-000006-1"}
    (folder / "000004").rename(folder / "000008")
    whole_folder.clear_left(folder)
    assert {path.name for path in folder.iterdir()} == {"000002", "000008"}


def test_a_copy_kept_under_another_name_is_neither_loaded_nor_dropped(finished: Trainer, run: Path) -> None:
    folder = run / "checkpoints"
    for name in ("000001-mine", "000004-mine"):
        shutil.copytree(folder / "000002", folder / name)
    resumed = toy_trainer(run)
    resumed.train(resume=True)
    assert equal(state(resumed), state(finished))
    save_checkpoint(folder, resumed.parts.updater, Progress(update=5), {})
    assert checkpoints(run) == ["000001-mine", "000004", "000004-mine", "000005"]


def test_processes_that_are_left_may_put_the_same_checkpoint_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each writes its own where the main one is gone; a second one comes between the two renames of the first."""
    final, rename = tmp_path / "000002", Path.rename
    asides = [tmp_path / f".writing-000002-{rank}" for rank in (1, 2)]
    for folder in (final, *asides):
        folder.mkdir()
        (folder / "file").write_text(folder.name)

    def interrupted(path: Path, target: Path) -> Path:
        moved = rename(path, target)
        if path == final and asides[1].exists():
            rename(asides[1], final)
        return moved

    monkeypatch.setattr(Path, "rename", interrupted)
    whole_folder.put_in_place(asides[0], final)
    assert (final / "file").read_text() == ".writing-000002-2"
    assert [path.name for path in tmp_path.iterdir()] == ["000002"]


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """2 MB of memory, mounted where pytest does not clean up: a killed session leaves it mounted."""
    disk = Path(tempfile.mkdtemp(prefix="rlgf-small-disk-"))
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        disk.rmdir()
        pytest.skip(f"a small disk cannot be mounted here: {error}")
    yield disk
    # Lazily, since a failed write may hold its file open.
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
    disk.rmdir()


@pytest.mark.parametrize(
    "room",
    [
        0,
        30,
        200,
    ],
    ids=["nothing fits", "weights do not fit", "optimizer does not fit"],
)
def test_a_full_disk_leaves_the_previous_checkpoint(small_disk: Path, room: int) -> None:
    trainer = toy_trainer(small_disk)
    trainer.step()
    updater = trainer.parts.updater
    root = small_disk / "checkpoints"
    first = save_checkpoint(root, updater, Progress(update=1), {})
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - room * 1024))
    with pytest.raises(UserError, match="the disk is full") as caught:
        save_checkpoint(root, updater, Progress(update=2), {})
    assert "earlier checkpoints are untouched: free some space and go on." in str(caught.value)
    assert checkpoints(small_disk) == ["000001"], "what was half written makes room again"
    assert load_checkpoint(first, updater, {}).update == 1
    ballast.unlink()
    assert load_checkpoint(save_checkpoint(root, updater, Progress(update=2), {}), updater, {}).update == 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_run_on_a_full_disk_ends_in_one_sentence(
    run: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(*unused: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    shutil.rmtree(run / "checkpoints" / "000004")
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        message = refusal(toy_trainer(run))
    assert f"the checkpoint of update 4 could not be written to {run / 'checkpoints'}" in message
    assert checkpoints(run) == ["000002"]
    toy_trainer(run).train(resume=True)


def test_what_was_being_written_alone_is_no_checkpoint(run: Path) -> None:
    folder = run / "checkpoints"
    shutil.rmtree(folder / "000002")
    (folder / "000004").rename(folder / ".writing-000004")
    assert latest_checkpoint(folder) is None


def test_files_are_hashed_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 * 2**20)
    tracemalloc.start()
    found = whole_folder.digests(tmp_path)["large"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == "3b6a07d0d404fab4e23b6d34bc6696a6a312dd92821332385e5af7c01c421351"
    assert peak < 2**20


def test_names_of_files_are_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def noting(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noting)
    trainer = toy_trainer(tmp_path)
    checkpoint.save_checkpoint(
        tmp_path / "checkpoints",
        trainer.parts.updater,
        trainer.progress,
        {},
        trainer.parts.assessor.state_dict(),
    )
    names = [path.name for path in synced]
    assert {"model.safetensors", "manifest.json", "policy", ".writing-000000"} <= set(names)
    assert names[-1] == "checkpoints", "after the rename"
