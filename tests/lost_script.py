"""One of two processes of a run, of which one is killed or never comes back in the third update.

RANK=... WORLD_SIZE=2 MASTER_ADDR=... MASTER_PORT=... python lost_script.py FOLDER RANK-THAT-FAILS killed|asleep
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import torch

from resume_script import toy_trainer
from rlgf import distributed


def main() -> None:
    torch.set_num_threads(1)
    folder, rank, how = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

    def fail(update: int) -> None:
        if update == 3 and distributed.rank() == rank:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            (folder / "asleep").touch()
            time.sleep(1000)

    changes = {"training": {"checkpoint_every": 4, "process_timeout": 20}, "evaluation": {"every": 4}}
    try:
        toy_trainer(folder, fail, **changes).train()
    except BaseException as error:
        (folder / "ended").write_text("\n".join([f"{type(error).__name__}: {error}", *error.__notes__]))
        raise


if __name__ == "__main__":
    main()
