"""Two updates of some cases of `sharded_script.py`, on the CPU and on the emulated device.

python emulated_script.py FOLDER CASE ...

Of each case the weights that it ends in and its metrics lie under FOLDER/cpu and FOLDER/emulated.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import torch

from emulated import DEVICE, EmulatedDevice
from rlgf import distributed
from sharded_script import CASES, run


def main() -> None:
    torch.set_num_threads(1)
    root, names = Path(sys.argv[1]), sys.argv[2:]
    for folder, place in (("cpu", contextlib.nullcontext()), ("emulated", EmulatedDevice())):
        with place:
            assert distributed.device() == (DEVICE if folder == "emulated" else torch.device("cpu"))
            found = {name: run(root / folder / name, CASES[name]) for name in names}
        (root / folder / "metrics.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
