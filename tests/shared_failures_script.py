"""Runs of processes that share the weights, in which something fails in one of them.

    ACCELERATE_USE_FSDP=true FSDP_VERSION=2 torchrun --nproc-per-node 2 shared_failures_script.py FOLDER

Each process writes down how its runs ended.
"""

from __future__ import annotations

import errno
import json
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from resume_script import toy_trainer
from rlgf import distributed
from rlgf.learning.assessor import Assessor
from rlgf.learning.updater import Updater
from rlgf.models import sharding
from rlgf.run import checkpoint


def ended(folder: Path, *, resume: bool = False) -> str:
    training = {"checkpoint_every": 1, "process_timeout": 100}
    try:
        toy_trainer(folder, training=training, evaluation={"every": 4}).train(resume=resume)
    except Exception as error:
        return f"{type(error).__name__}: {error} {' '.join(getattr(error, '__notes__', []))}"
    return "finished"


def failed_in_a_pass(folder: Path) -> dict[str, Any]:
    """How runs end that fail while weights go from one process to the other; in one of them alone it comes last."""
    whose, loss, there = (0, 1), Updater._policy_loss, toy_trainer(folder / "late")

    def fails(*arguments: Any, **options: Any) -> Any:
        if distributed.rank() in whose:
            raise ValueError("a bad loss")
        return loss(*arguments, **options)

    with patch.object(Updater, "_policy_loss", fails):
        said = {"a loss of both": ended(folder)}
        whose, started = (1,), time.monotonic()
        said["a loss of one"] = ended(folder)
    said["seconds"] = time.monotonic() - started
    if distributed.is_main():  # the other one is gone
        try:
            sharding.joint_state(there.parts.policy.model.state_dict(keep_vars=True))
        except Exception as error:
            said["weights"] = f"{type(error).__name__}: {error}"
    return said


def main() -> None:
    torch.set_num_threads(1)
    folder, save, load, state = Path(sys.argv[1]), checkpoint.save_policy, sharding.load, Assessor.state_dict

    def full(policy: Any, where: Path) -> None:
        save(policy, where)
        if distributed.is_main() and "000002" in str(where):
            raise OSError(errno.ENOSPC, "No space left on device")

    def unreadable(model: Any, weights: Any) -> None:
        if distributed.is_main():
            raise OSError(errno.EIO, "Input/output error")
        load(model, weights)

    def mute(self: Assessor) -> dict[str, Any]:
        if not distributed.is_main() and self.trainer_state.global_step == 2:
            raise ValueError("no state")
        return state(self)

    said = {}
    with patch.object(checkpoint, "save_policy", full):
        said["a full disk"] = ended(folder)
    with patch.object(sharding, "load", unreadable):
        said["a disk that cannot be read"] = ended(folder, resume=True)
    with patch.object(Assessor, "state_dict", mute):
        said["a reward without a state"] = ended(folder, resume=True)
    said["nothing"] = ended(folder, resume=True)
    said |= failed_in_a_pass(folder / "passes")
    (folder / f"{distributed.rank()}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
