"""Two updates of some cases of `sharded_script.py`, on the CPU and on the emulated device.

python emulated_script.py FOLDER CASE ...

Of each case the weights that it ends in and its metrics lie under FOLDER/cpu and FOLDER/emulated, and in
FOLDER/emulated/reads.json where the device was read for gradients.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

from emulated import DEVICE, READS, EmulatedDevice
from rlgf import distributed
from rlgf.learning.updater import Updater
from rlgf.run import build
from sharded_script import CASES, run


class Watched(Updater):
    """Notes where the device is read for the gradients of a step, beyond the numbers for its log."""

    read: list[str]

    def backward(self, *args: Any, **options: Any) -> dict[str, torch.Tensor]:
        before = len(READS)
        numbers = super().backward(*args, **options)
        own = [place for place in READS[before:] if "/rlgf/" in place]
        logged = [place for place in own if "/updater.py:" in place]
        Watched.read += [place for place in own if place not in logged] + logged[len(numbers) :]
        return numbers


def watched(name: str, folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    Watched.read = []
    return run(folder / name, CASES[name]), Watched.read


def main() -> None:
    torch.set_num_threads(1)
    root, names = Path(sys.argv[1]), sys.argv[2:]
    build.Updater = Watched
    for folder, place in (("cpu", contextlib.nullcontext()), ("emulated", EmulatedDevice())):
        with place:
            assert distributed.device() == (DEVICE if folder == "emulated" else torch.device("cpu"))
            found = {name: watched(name, root / folder) for name in names}
        for place, file in enumerate(("metrics.json", "reads.json")):
            (root / folder / file).write_text(json.dumps({name: one[place] for name, one in found.items()}))


if __name__ == "__main__":
    main()
