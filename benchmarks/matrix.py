"""Which algorithm runs on which task with which kind of model: each cell is a run of two updates.

make matrix                                        # or, of some rows alone
python benchmarks/matrix.py ppo guided-grpo

A cell is the command that it prints: `rlgf train` with a task, a policy and an algorithm. The models are
tiny and learn nothing; that the algorithms learn is shown by tests/properties and results/. CommonGen is
read from 50 of its samples that the tests hold, and TL;DR is its stand-in of film reviews.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rlgf import algorithms as catalog
from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer

TASKS = ("imdb", "commongen", "tldr")
SIZES = "vocabulary: 512, layers: 2, heads: 2, width: 32"
SCRATCH = {
    "causal": f"policy.scratch={{{SIZES}}}",
    "encoder-decoder": f"policy.scratch={{{SIZES}, encoder_layers: 2}}",
}
KINDS = {
    "causal": ("causal", ()),
    "encoder-decoder": ("encoder-decoder", ()),
    "LoRA": ("causal", ("policy.lora={}",)),
    "LoRA, encoder-decoder": ("encoder-decoder", ("policy.lora={}",)),
}
NEEDS = {"gad": ("reward=discriminator",), "scaf-grpo": ("algorithm.script.hint.shares=[0.5]",)}
"""What rows ask of a recipe beyond their own under recipes/algorithms."""
# The rejected texts that offline-dpo learns from are in none of these tasks.
ALGORITHMS = tuple(name for name in catalog.ALGORITHMS if name != "offline-dpo")
RUNS = Path("runs/matrix")
BASE = "benchmarks/matrix/base.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("algorithms", nargs="*", default=ALGORITHMS, help="default: all")
    algorithms = parser.parse_args().algorithms
    shutil.rmtree(RUNS, ignore_errors=True)
    write_commongen(RUNS / "commongen")
    for task in TASKS:
        for kind, scratch in SCRATCH.items():
            start = ("algorithm=bc", scratch, f"output={start_folder(task, kind)}")
            run([BASE, f"benchmarks/matrix/{task}.yaml", *start])
    found: dict[tuple[str, str, str], str] = {}
    for algorithm, task, kind in cells(algorithms):
        sources = command(algorithm, task, kind)
        began = time.perf_counter()
        found[algorithm, task, kind] = run(sources)
        seconds = time.perf_counter() - began
        line = f"rlgf train {' '.join(sources)}"
        print(f"{found[algorithm, task, kind]}  {seconds:4.1f} s  {line}", flush=True)
    for task in TASKS:
        table = Table(task, *KINDS)
        for algorithm in algorithms:
            table.add_row(algorithm, *(found[algorithm, task, kind] for kind in KINDS))
        Console().print(table)
    if set(found.values()) != {"yes"}:
        raise SystemExit(1)


def cells(algorithms: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for task in TASKS:
        for kind in KINDS:
            for algorithm in algorithms:
                yield algorithm, task, kind


def start_folder(task: str, kind: str) -> Path:
    return RUNS / "start" / f"{task}-{kind}"


def command(algorithm: str, task: str, kind: str) -> list[str]:
    """Recipes and overrides of a cell; policy and guide are two copies of one tiny model."""
    start, changes = KINDS[kind]
    model = start_folder(task, start) / "policy"
    recipe = Path(f"recipes/algorithms/{algorithm}.yaml")
    return [
        BASE,
        f"benchmarks/matrix/{task}.yaml",
        f"policy.model={model}",
        f"guide.model={model}",
        str(recipe) if recipe.exists() else f"algorithm={algorithm}",
        "rollout.max_hint_tokens=32",
        *NEEDS.get(algorithm, ()),
        *changes,
        f"output={RUNS / task / kind.replace(', ', '-') / algorithm}",
    ]


def run(sources: list[str]) -> str:
    """'yes', or why the combination is refused."""
    try:
        Trainer(load_config(*sources), display=Display(Console(quiet=True))).train()
    except UserError as error:
        return f"refused: {error}"
    return "yes"


def write_commongen(folder: Path) -> None:
    lines = Path("tests/data/commongen_outputs.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    folder.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for row in rows:
                line = {"concepts": row["concepts"], "references": row["references"]}
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
