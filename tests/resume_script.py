"""A small run, also as a process of its own that tests can kill.

    python resume_script.py FOLDER [--resume] [--pause UPDATE SECONDS] [--changes JSON]

`--pause` makes one update last long, and leaves a file `paused` in the folder while it does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from rlgf.config import Config
from rlgf.guides import Guide
from rlgf.run.build import build_parts
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from toys import FavouringGuide, LetterTask, letter_gpt, share_of_a

# With this seed the rows take turns, so both critics train before and after every checkpoint.
LOLS = {"algorithm": {"base": "lols", "explore_prob": 0.5}, "seed": 125}


def toy_trainer(
    folder: Path,
    during_update: Callable[[int], None] = lambda update: None,
    guide: Guide | dict[str, Any] | None = None,
    **changes: Any,
) -> Trainer:
    """A run of four updates with a checkpoint every second one.

    Args:
        guide: default: one that favours the letter a; or what a recipe says of one.
        during_update: called with the number of the update whose texts are being rewarded.
        changes: top-level keys of the configuration; the fields of a section are set one by one, except
            for ``reward``, which replaces the toy reward as a whole.
    """
    sections: dict[str, Any] = {
        "task": {"name": "letters"},
        "policy": {"model": "made by hand"},
        "guide": guide if isinstance(guide, dict) else {"model": "made by hand"},
        "reward": {"name": "share_of_a"},
        "algorithm": {"kl": {"coefficient": 0.1}},
        "output": str(folder),
        "rollout": {"episodes": 8, "max_prompt_tokens": 4, "max_response_tokens": 6},
        "update": {"minibatch": 4, "epochs": 2, "learning_rate": {"start": 5e-3, "end": 1e-3}},
        "training": {"updates": 4, "checkpoint_every": 2, "trackers": []},
        "evaluation": {"every": 3, "samples": 8, "test_samples": 8},
    }
    own_reward = changes.get("reward")
    if own_reward is not None:
        del sections["reward"]
    for name, change in changes.items():
        if isinstance(change, str) and name == "algorithm":
            change = {"base": change}
        sections[name] = {**sections.get(name, {}), **change} if isinstance(change, dict) else change
    config = Config.model_validate(sections)

    def reward(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
        during_update(trainer.progress.update + 1)
        return share_of_a(prompts, completions)

    given = None if isinstance(guide, dict) else guide or FavouringGuide("a", 0.6)
    chosen = reward if own_reward is None else None
    parts = build_parts(config, task=LetterTask(), reward=chosen, guide=given, policy=letter_gpt())
    trainer = Trainer(config, parts, Display(Console(quiet=True)))
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--pause", type=int, nargs=2, default=(0, 0), metavar=("UPDATE", "SECONDS"))
    parser.add_argument("--changes", type=json.loads, default=LOLS, help="of the configuration, in JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    def pause(update: int) -> None:
        if update == arguments.pause[0]:
            (arguments.folder / "paused").touch()
            time.sleep(arguments.pause[1])

    try:
        toy_trainer(arguments.folder, pause, **arguments.changes).train(resume=arguments.resume)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
