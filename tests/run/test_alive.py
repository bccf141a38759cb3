"""Whether a run goes on."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from resuming import digests, refusal

from resume_script import toy_trainer
from rlgf.errors import UserError
from rlgf.run.alive import FolderLock, goes_on


def test_a_run_that_is_killed_has_ended(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: run\n")
    code = f"from pathlib import Path; from rlgf.run.alive import FolderLock; held = FolderLock(Path({str(tmp_path)!r})); print(1, flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert goes_on(tmp_path)
    process.kill()
    process.communicate()
    assert not goes_on(tmp_path)


def test_a_second_run_in_one_folder_is_refused(tmp_path: Path) -> None:
    """Before its first checkpoint too, and whether it is to go on or to begin; who looks on does not stand in its way."""
    held = FolderLock(tmp_path)
    (tmp_path / "config.yaml").write_text("name: first\n")
    before = digests(tmp_path)
    for resume in (False, True):
        assert f"a run goes on in {tmp_path}: wait" in refusal(toy_trainer(tmp_path), resume=resume)
    assert digests(tmp_path) == before
    with pytest.raises(UserError) as kept:
        FolderLock(tmp_path)
    # The traceback has the object, which at the interpreter's end would find no module to close its file with.
    refused = kept.traceback[-1].frame.f_locals["self"]
    assert refused._descriptor == -1
    held.release()
    with (tmp_path / "config.yaml").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        threading.Timer(0.15, file.close).start()
        FolderLock(tmp_path).release()
