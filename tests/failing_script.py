"""Runs of two processes in which something fails in one of them, and how each process ended.

    torchrun ... failing_script.py FOLDER

Each process goes through all of `CASES`, one run after the other, and writes down how each run ended and what a resumed
one came to. The processes share no disk: each has a folder of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from faulty_server import FaultyServer, serving
from rlgf import distributed
from rlgf.config import Config
from rlgf.errors import UserError
from rlgf.guides import Guide, HTTPGuide, HTTPGuideConfig, Request
from rlgf.metrics import TEXT_METRICS
from rlgf.run.build import build_parts
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from rlgf.types import Completion, Rollout, Sample
from toys import FavouringGuide, LetterTask, letter_gpt, share_of_a


class MishapError(Exception):
    """What a user's own code might raise."""


FAULTS: dict[str, Callable[[], None]] = {}


def fault(function: Callable[[], None]) -> None:
    FAULTS[function.__name__] = function


@fault
def mishap() -> None:
    raise MishapError("what went wrong")


@fault
def sentence() -> None:
    raise UserError("the parser needs a number.")


@fault
def memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@fault
def leaves() -> None:
    sys.exit(3)


@fault
def preempted() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


CASES: dict[str, tuple[str, str, int]] = {
    "nothing fails": ("", "", 0),
    "guide": ("collect", "mishap", 1),
    "reward": ("assess", "mishap", 1),
    "reward of the main process": ("assess", "mishap", 0),
    "reward with a sentence": ("assess", "sentence", 1),
    "reward that leaves": ("assess", "leaves", 1),
    "learning reward": ("learn", "mishap", 1),
    "memory": ("learn", "memory", 1),
    "reward in an evaluation": ("evaluate", "mishap", 1),
    "metric": ("measure", "mishap", 1),
    "state": ("save", "mishap", 1),
    "signal": ("assess", "preempted", 1),
}
"""When, what and in which process: in the third update, or the evaluation before it."""


class Faulty:
    """A reward that learns and counts the texts of its own process, a guide and a metric, that fail as a case says."""

    def __init__(self, when: str, what: str, rank: int) -> None:
        self.when, self.what, self.rank = when, what, rank
        self.seen = 0
        self.guide = FavouringGuide("a", 0.6)
        self.trainer: Trainer | None = None

    def at(self, when: str) -> None:
        third = self.trainer is not None and self.trainer.progress.update == 2
        if third and when == self.when and distributed.rank() == self.rank:
            FAULTS[self.what]()

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        training = len(completions) == len(distributed.share(7))
        self.at("assess" if training else "evaluate")
        self.seen += len(completions)
        return share_of_a(prompts, completions)

    def update(self, rollout: Rollout) -> dict[str, float]:
        self.at("learn")
        return {}

    def state_dict(self) -> dict[str, int]:
        self.at("save")
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.seen = state["seen"]

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        self.at("collect")
        return self.guide.write(requests)

    def metric(self, prompts: Any, completions: Any, references: Any, **columns: Any) -> dict[str, float]:
        self.at("measure")
        return {"faulty": 1.0}


class FaultyGuide:
    """The guide's side of `Faulty`."""

    def __init__(self, faulty: Faulty) -> None:
        self.write = faulty.write


class OtherTask(LetterTask):
    """Of the second process, where the disks hold other data."""

    def load(self, split: str) -> list[Sample]:
        return list(reversed(super().load(split)))


def trainer(
    folder: Path,
    when: str = "",
    what: str = "",
    rank: int = 0,
    *,
    task: LetterTask | None = None,
    weights: int = 0,
    guide: Guide | None = None,
    **changes: Any,
) -> Trainer:
    config = Config.model_validate(
        {
            "task": {"name": "letters"},
            "policy": {"model": "made by hand"},
            "guide": {"model": "made by hand"},
            "reward": {"name": "faulty"},
            "algorithm": "ppo++",
            # Of an odd number of prompts the processes get unequal shares.
            "rollout": {"episodes": 7, "max_prompt_tokens": 4, "max_response_tokens": 6},
            "update": {"minibatch": 4, "epochs": 1, "learning_rate": 5e-3},
            "training": {"updates": 4, "checkpoint_every": 4, "trackers": []},
            "evaluation": {"every": 2, "samples": 5, "test_samples": 3},
            "output": str(folder / f"disk {distributed.rank()}"),
            **changes,
        }
    )
    faulty = Faulty(when, what, rank)
    parts = build_parts(
        config,
        task=task or LetterTask(),
        reward=faulty,
        guide=guide or FaultyGuide(faulty),
        policy=letter_gpt(seed=weights),
    )
    parts.evaluator.metrics = {**TEXT_METRICS, "faulty": faulty.metric}
    faulty.trainer = made = Trainer(config, parts, Display(Console(quiet=True)))
    return made


def run(root: Path, name: str) -> dict[str, Any]:
    folder = root / name
    ended, notes, shown = "finished", [], list[str]()
    try:
        failing = trainer(folder, *CASES[name])
        failing.display.note = shown.append
        failing.train()
    except BaseException as error:
        ended, notes = f"{type(error).__name__}: {error}", getattr(error, "__notes__", [])
    disk = folder / f"disk {distributed.rank()}"
    saved = sorted(path.name for path in (disk / "checkpoints").glob("*"))
    resumed = trainer(folder)
    resumed.train(resume=True)
    weights = b"".join(p.detach().numpy().tobytes() for p in resumed.parts.updater.trained)
    lines = (disk / "metrics.jsonl").read_text().splitlines() if (disk / "metrics.jsonl").exists() else []
    return {
        "ended": ended,
        "notes": notes,
        "shown": shown,
        "saved": saved,
        "weights": hashlib.sha256(weights).hexdigest(),
        "seen": resumed.parts.assessor.state_dict()["reward"]["seen"],
        "metrics": [json.loads(line) for line in lines],
    }


def outcome(made: Callable[[], Trainer]) -> str:
    try:
        made().train()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "finished"


def misfits(root: Path) -> dict[str, str]:
    """How runs end whose processes were not given the same."""
    second = distributed.rank()
    updates = {"updates": 4 + second, "trackers": []}
    return {
        "settings": outcome(lambda: trainer(root / "settings", seed=second)),
        "length": outcome(lambda: trainer(root / "length", training=updates)),
        "weights": outcome(lambda: trainer(root / "weights", weights=second)),
        "data": outcome(lambda: trainer(root / "data", task=OtherTask() if second else None)),
    }


def budgets(root: Path) -> dict[str, dict[str, Any]]:
    """How runs end that ask a server, which may be asked 12 times, by all processes together."""
    found = {}
    for then in ("stop", "unguided"):
        with serving(FaultyServer()) as server:
            url = distributed.from_main(server.url)
            config = HTTPGuideConfig(url=url, model="letters", budget={"calls": 12, "then": then}, cache=None)
            guide = HTTPGuide(config)
            guided = trainer(root / then, guide=guide)
            if distributed.is_main():
                guide.write([Request("a", 6, seed=0)])
            guided.guide_usage.settle()
            ended = outcome(lambda made=guided: made)
            guided.close()
            found[then] = {
                "ended": ended,
                "answered": distributed.from_main(sum(server.answered.values())),
                "accounts": [
                    sum(one["calls"] for one in own.values())
                    for own in distributed.gathered(guided.progress.guide_accounts)
                ],
                "unguided": guided.progress.unguided,
            }
    return found


def main() -> None:
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    found: dict[str, Any] = {name: run(root, name) for name in CASES}
    found |= {"misfits": misfits(root), "budgets": budgets(root)}
    (root / f"{distributed.rank()}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
