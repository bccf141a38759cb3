"""Memory that prompts from a file of 10 million rows take, beside one of 10 thousand.

    python benchmarks/rows.py [FOLDER]

Each run is a process of its own: it builds the task `data`, loads the training split and draws the first
five batches of 112 in shuffled order, as the trainer does. The file of 10 million rows takes about 1 GB in
FOLDER (default: the folder for temporary files) and is deleted afterwards.

On two cores of an AMD EPYC, 2026-11-24: 386 MB at most for 10 thousand rows, most of it libraries, and 541 MB for
10 million (1,048 MB on disk), in 3.2 s: 8 bytes a row for where it begins, 8 for its place in the order.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCHES, BATCH = 5, 112


def draw(file: Path) -> None:
    """One run; prints its seconds and its peak memory in MB."""
    from rlgf.run.plan import shuffled_passes
    from rlgf.tasks import build_task

    started = time.perf_counter()
    samples = build_task("data", {"train": str(file), "reference_field": None}).load("train")
    for update in range(BATCHES):
        batch = [samples[i] for i in shuffled_passes(update * BATCH, BATCH, len(samples), seed=0)]
        assert len({sample.prompt for sample in batch}) == BATCH
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(samples):>10,} rows: {time.perf_counter() - started:.1f} s, peak {peak:.0f} MB")


def write(file: Path, rows: int) -> None:
    with file.open("w") as lines:
        for i in range(rows):
            lines.write(
                f'{{"prompt": "row {i}: the film that this review is about was seen on a rainy evening by {i * 7919 % 9973} people"}}\n'
            )


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        for rows in (10_000, 10_000_000):
            file = Path(folder) / f"{rows}.jsonl"
            write(file, rows)
            print(f"{file.stat().st_size / 1e6:.0f} MB:", end=" ", flush=True)
            subprocess.run([sys.executable, __file__, "--draw", str(file)], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--draw"]:
        draw(Path(sys.argv[2]))
    else:
        main()
