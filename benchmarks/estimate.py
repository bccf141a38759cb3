"""The memory that runs take, beside what `rlgf check` says before they begin (docs/scaling.md).

    python benchmarks/estimate.py [CASE ...]

Each case is two updates and an evaluation in a process of its own, whose most memory the system tells
(`getrusage`), before the first checkpoint is written and in all. What the libraries and the task take is measured in the process itself: all that it holds
once its models are loaded, but for their weights.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from typing import Any

import psutil
from transformers import TrainerCallback

GPT: dict[str, Any] = {"scratch": {"layers": 8, "width": 256, "heads": 4, "context": 512}}
SMOL = {"model": "smollm2-135m"}
SHORT = {"episodes": 16, "max_prompt_tokens": 48, "min_response_tokens": 32, "max_response_tokens": 32}
LONG = {"episodes": 16, "max_prompt_tokens": 64, "min_response_tokens": 192, "max_response_tokens": 192}
CASES: dict[str, dict[str, Any]] = {
    "GPT-2, PPO": {"policy": GPT, "rollout": LONG, "algorithm": "ppo"},
    "GPT-2, PPO, checkpointing": {
        "policy": GPT,
        "rollout": LONG,
        "algorithm": "ppo",
        "update": {"gradient_checkpointing": True},
    },
    "GPT-2, GRPO": {"policy": GPT, "rollout": LONG, "algorithm": "grpo"},
    "SmolLM2, GRPO": {"policy": SMOL, "rollout": SHORT, "algorithm": "grpo"},
    "SmolLM2, PPO, head": {"policy": {**SMOL, "critic": "head"}, "rollout": SHORT, "algorithm": "ppo"},
    "SmolLM2, PPO, separate": {"policy": SMOL, "rollout": SHORT, "algorithm": "ppo"},
    "SmolLM2, PPO, LoRA": {"policy": {**SMOL, "lora": {}}, "rollout": SHORT, "algorithm": "ppo"},
}
BASE: dict[str, Any] = {
    "task": "imdb",
    "reward": f"{__file__}:length_reward",
    "update": {"epochs": 1, "minibatch": 8, "max_micro_tokens": 4096, "learning_rate": 1e-5},
    "training": {"updates": 2, "checkpoint_every": 9, "trackers": []},
    "evaluation": {"every": 9, "samples": 8, "test_samples": 8, "metrics": ["words"]},
}


def length_reward(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    return [float(len(text) % 7) for text in completions]


def most() -> int:
    """The most bytes that this process has held so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class AfterLearning(TrainerCallback):
    """The most bytes before anything is saved."""

    peak = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        self.peak = most()


def run(recipe: dict[str, Any]) -> dict[str, float]:
    """One run; bytes of the libraries, of the estimate and of the peak."""
    import torch

    from rlgf import Trainer, load_config
    from rlgf.run.memory import estimated

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(BASE, recipe, {"output": folder})
        said = estimated(config)
        trainer = Trainer(config)
        libraries = psutil.Process().memory_info().rss - said.weights
        watch = AfterLearning()
        trainer.callbacks.append(watch)
        trainer.train()
    return {"libraries": libraries, "estimate": said.peak, "learning": watch.peak, "peak": most()}


def main() -> None:
    print(f"{'case':<34}{'libraries':>10}{'estimate':>10}{'learning':>10}{'measured':>10}{'ratio':>7}   GB")
    for name in sys.argv[1:] or CASES:
        done = subprocess.run(
            [sys.executable, __file__, "--run", json.dumps(CASES[name])],
            check=True,
            capture_output=True,
            text=True,
        )
        found = json.loads(done.stdout.splitlines()[-1])
        ratio = (found["libraries"] + found["estimate"]) / found["peak"]
        row = "".join(f"{size / 1e9:>10.2f}" for size in found.values())
        print(f"{name:<34}{row}{ratio:>7.2f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        print("\n" + json.dumps(run(json.loads(sys.argv[2]))))
    else:
        main()
