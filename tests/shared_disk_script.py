"""Runs of processes that share the weights, whose main one alone meets a disk that fails.

    ACCELERATE_USE_FSDP=true FSDP_VERSION=2 torchrun --nproc-per-node 2 shared_disk_script.py FOLDER

Each process writes down how its runs ended.
"""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Any

import torch

from resume_script import toy_trainer
from rlgf import distributed
from rlgf.models import sharding
from rlgf.run import checkpoint


def ended(folder: Path, *, resume: bool = False) -> str:
    training = {"checkpoint_every": 1, "process_timeout": 20}
    try:
        toy_trainer(folder, training=training).train(resume=resume)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "finished"


def main() -> None:
    torch.set_num_threads(1)
    folder, save, load = Path(sys.argv[1]), checkpoint.save_policy, sharding.load

    def full(policy: Any, where: Path) -> None:
        save(policy, where)
        if distributed.is_main() and "000002" in str(where):
            raise OSError(errno.ENOSPC, "No space left on device")

    def unreadable(model: Any, state: Any) -> None:
        if distributed.is_main():
            raise OSError(errno.EIO, "Input/output error")
        load(model, state)

    checkpoint.save_policy = full
    said = [ended(folder)]
    checkpoint.save_policy, sharding.load = save, unreadable
    said.append(ended(folder, resume=True))
    sharding.load = load
    said.append(ended(folder, resume=True))
    (folder / f"{distributed.rank()}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
