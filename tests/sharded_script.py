"""Two updates of every algorithm, for a run in one process or in several, which may share the weights.

python sharded_script.py FOLDER [CASE ...]
ACCELERATE_USE_FSDP=true FSDP_VERSION=2 torchrun --nproc-per-node 2 sharded_script.py FOLDER [CASE ...]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from rlgf import distributed
from rlgf.algorithms import ALGORITHMS
from rlgf.models import launcher, sharding
from toys import letter_t5
from training_toys import build

# Of 10 tokens a text, so that an optimizer step has several micro-batches and processes unequal numbers of them.
UPDATE = {"minibatch": 8, "epochs": 1, "learning_rate": 1e-3, "max_micro_tokens": 25}
# Processes write different numbers of turns.
DIALOGUES: dict[str, Any] = {
    "environment": {"name": "toys:says_d", "turns": 3},
    "rollout": {"max_response_tokens": 9},
}
CASES: dict[str, dict[str, Any]] = {
    **{name: {"algorithm": name} for name in ALGORITHMS},
    # Each update uses all 64 prompts, so the help of the second depends on what the first one recorded.
    "a record of each prompt": {
        "algorithm": "adaback",
        "changes": {"group_size": 2, "help": {"success": 0.3}},
        "rollout": {"episodes": 128},
    },
    "one trunk": {"algorithm": "ppo++", "critic": "head"},
    "lora": {"algorithm": "guided-grpo", "lora": {"r": 2}},
    "its own guide": {"algorithm": "opsd", "guide": "self"},
    "its own guide, lora": {"algorithm": "opsd", "guide": "self", "lora": {"r": 2}},
    "stops early": {"algorithm": "ppo", "update": {**UPDATE, "epochs": 4, "max_update_kl": 1e-4}},
    "encoder-decoder": {"algorithm": "ppo", "policy": letter_t5, "beams": 2},
    "a search": {"algorithm": "ppo", "beams": 2},
    "checkpointing": {"algorithm": "ppo", "update": {**UPDATE, "gradient_checkpointing": True}},
    "top-k": {"algorithm": "ppo", "rollout": {"top_k": 2}},
    "dialogues": {"algorithm": "aggrevated", **DIALOGUES},
    "dialogues that branch": {
        "algorithm": "vineppo",
        "changes": {"branches": {"every": 1, "texts": 2}},
        **DIALOGUES,
    },
}


def run(folder: Path, case: dict[str, Any]) -> list[dict[str, Any]]:
    if "policy" in case:
        case = {**case, "policy": case["policy"]()}
    trainer = build(**{"update": UPDATE, "training": {"updates": 2}, **case})
    shared = [sharding.is_sharded(parameter) for parameter in trainer.parts.updater.trained]
    assert all(shared) if launcher.wanted() else not any(shared)
    steps = [trainer.step() for _ in range(2)]
    trainer.save_model(folder)
    return [{**step, **trainer.evaluate().totals} for step in steps]


def main() -> None:
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    # With shared weights one row is refused (docs/scaling.md).
    names = sys.argv[2:] or [name for name in CASES if name != "a-star-po" or not launcher.wanted()]
    found = {name: run(root / name, CASES[name]) for name in names}
    if distributed.is_main():
        (root / "metrics.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
