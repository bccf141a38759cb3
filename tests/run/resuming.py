"""Runs that are to be resumed, and what must be the same in the end."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from resume_script import LOLS
from rlgf.errors import UserError
from rlgf.run.trainer import Trainer

CHANGED = {"update": {"epochs": 3}}
HEAD = {"policy": {"critic": "head"}}
ITSELF: dict[str, Any] = {
    "algorithm": "opsd",
    "guide": {"self": True},
    "policy": {"lora": {"r": 2}},
    "rollout": {"max_hint_tokens": 16},
}
CASES: dict[str, dict[str, Any]] = {
    "ppo": {},
    "ppo, critic as a head": HEAD,
    "lols": LOLS,
    "lols, critics as heads": LOLS | HEAD,
    "guided-grpo": {"algorithm": "guided-grpo"},
    "a reward with a state": {
        "algorithm": "gail",
        "reward": {
            "terms": {
                "a": "toys:share_of_a",
                "real": {"name": "discriminator", "weight": 0.1, "options": {"learning_rate": 1e-2}},
            },
            "normalize": True,
        },
    },
    "guided-rebel": {"algorithm": "guided-rebel"},
    "dagger": {"algorithm": "dagger"},
    "vineppo": {"algorithm": {"base": "vineppo", "branches": {"every": 3, "texts": 2}}},
    "gad": {"algorithm": "gad", "reward": {"name": "discriminator", "options": {"learning_rate": 1e-2}}},
    # Every prompt comes three times, and how much help it has depends on the times before.
    "a record of each prompt": {
        "algorithm": {"base": "adaback", "group_size": 2, "help": {"success": 0.3}},
        "rollout": {"episodes": 96},
        "update": {"minibatch": 48, "epochs": 1},
    },
    # Every prompt comes three times, and what succeeded comes again with it.
    "successes of its own": {
        "algorithm": {"base": "exgrpo", "group_size": 2, "help": {"success": 0.3}},
        "rollout": {"episodes": 96},
        "update": {"minibatch": 48, "epochs": 1},
    },
    # Every prompt comes three times, and the guide reads what succeeded.
    "its own successes as hints": {
        "algorithm": {
            "base": "sdpo",
            "script": {"hint": {"template": "{hint}{prompt}"}},
            "help": {"success": 0.3},
        },
        "guide": {"self": "live"},
        "rollout": {"episodes": 48, "max_hint_tokens": 8},
        "update": {"minibatch": 24, "epochs": 1},
    },
    # Every prompt comes again after its value was estimated.
    "start values": {
        "algorithm": "a-star-po",
        "rollout": {"episodes": 48},
        "update": {"minibatch": 24, "epochs": 1},
    },
    "offline-dpo": {"algorithm": "offline-dpo"},
    "its own guide": {**ITSELF, "policy": {}},
    "its own guide, with an adapter": ITSELF,
    "its own average": {**ITSELF, "policy": {}, "guide": {"self": "average", "decay": 0.5}},
    "its own average, with an adapter": {**ITSELF, "guide": {"self": "average", "decay": 0.5}},
    "adaptive KL": {
        "algorithm": {"base": "ppo++", "kl": {"coefficient": 0.1, "target": 0.01, "horizon": 2.0}}
    },
}


def equal(one: Any, other: Any) -> bool:
    """Whether nested states are the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def state(trainer: Trainer) -> dict[str, Any]:
    """A copy of everything that training changes."""
    updater = trainer.parts.updater
    modules = {"policy": updater.policy.model.state_dict()}
    modules |= {name: critic.state_dict() for name, critic in updater.critics.items()}
    progress = {key: value for key, value in vars(trainer.progress).items() if key != "seconds"}
    return copy.deepcopy(
        {
            **modules,
            "optimizer": updater.optimizer.state_dict(),
            "progress": progress,
            "reward": trainer.parts.assessor.state_dict(),
        }
    )


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log without what the clock says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clock = ("seconds", "tokens_per_second")
    return [{key: value for key, value in line.items() if not key.startswith(clock)} for line in lines]


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def digests(folder: Path) -> dict[Path, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def refusal(trainer: Trainer, *, resume: bool = True) -> str:
    """What a user is told, made sure to be one sentence on one line."""
    with pytest.raises(UserError) as caught:
        trainer.train(resume=resume)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message
