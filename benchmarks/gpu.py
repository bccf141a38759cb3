"""The tests marked `gpu`, and updates on whatever GPU there is: results/gpu.md.

    make gpu

Each case is four updates in a process of its own, of which the last three count: response tokens per second of the
whole update, seconds of its steps, and the most memory that PyTorch took beside the estimate of `rlgf check`.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers

ROOT = Path(__file__).parents[1]
UPDATES = 4
SMOL = {"model": "smollm2-135m"}
TEXTS = {"episodes": 112, "max_prompt_tokens": 64, "min_response_tokens": 48, "max_response_tokens": 48}
CASES: dict[str, dict[str, Any]] = {
    "GPT-2 of 4 million, GRPO": {"policy": {"scratch": {}}, "algorithm": "grpo"},
    "GPT-2 of 4 million, PPO": {"policy": {"scratch": {}}, "algorithm": "ppo"},
    "SmolLM2-135M, GRPO": {"policy": SMOL, "algorithm": "grpo"},
    "SmolLM2-135M, PPO": {"policy": SMOL, "algorithm": "ppo"},
    "SmolLM2-135M, PPO, gradient_checkpointing": {
        "policy": SMOL,
        "algorithm": "ppo",
        "update": {"gradient_checkpointing": True},
    },
}
BASE: dict[str, Any] = {
    "task": "imdb",
    "reward": f"{__file__}:length_reward",
    "rollout": TEXTS,
    "update": {"epochs": 2, "minibatch": 28, "learning_rate": 1e-5},
    "training": {"updates": UPDATES, "trackers": []},
}


def length_reward(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    return [float(len(text) % 7) for text in completions]


def measured(recipe: dict[str, Any], base: dict[str, Any] = BASE) -> dict[str, float]:
    """Medians of the updates after the first; bytes of memory, and of their estimate."""
    from rlgf import Trainer, load_config
    from rlgf.run.memory import estimated

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(load_config(base, recipe, {"output": folder}))
        steps = [trainer.step() for _ in range(trainer.config.training.updates)][1:]
    names = ("tokens_per_second", "seconds_collect", "seconds_assess", "seconds_learn")
    found = {name: statistics.median(float(step[name]) for step in steps) for name in names}
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {**found, "peak": peak, "estimate": estimated(trainer.config).peak}


def table(rows: dict[str, dict[str, float]]) -> list[str]:
    lines = [
        "| update | tokens/s | collect s | assess s | learn s | memory GB | estimate GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in rows.items():
        seconds = " | ".join(f"{found[f'seconds_{phase}']:.2f}" for phase in ("collect", "assess", "learn"))
        lines.append(
            f"| {name} | {found['tokens_per_second']:,.0f} | {seconds} | {found['peak'] / 1e9:.2f} | "
            f"{found['estimate'] / 1e9:.2f} |"
        )
    return lines


def page(tests: str, rows: dict[str, dict[str, float]]) -> str:
    device = torch.cuda.get_device_properties(0)
    return "\n".join(
        [
            "# On a GPU",
            "",
            f"{device.name}, {device.total_memory / 1e9:.0f} GB; PyTorch {torch.__version__} (CUDA {torch.version.cuda}), "
            f"transformers {transformers.__version__}, Python {platform.python_version()}; {date.today()}.",
            "",
            f"Tests marked `gpu`: {tests}.",
            "",
            f"{TEXTS['episodes']} prompts of {TEXTS['max_prompt_tokens']} tokens, responses of "
            f"{TEXTS['max_response_tokens']}, 2 epochs; written by `make gpu`.",
            "",
            *table(rows),
            "",
        ]
    )


def main() -> int:
    if not torch.cuda.is_available():
        print(
            "make gpu: there is no GPU that PyTorch can use (torch.cuda.is_available() is false).",
            file=sys.stderr,
        )
        return 1
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-m", "gpu", "-rA", "tests/gpu"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    print(tests.stdout, flush=True)
    rows = {}
    for name, recipe in CASES.items():
        done = subprocess.run(
            [sys.executable, __file__, "--run", json.dumps(recipe)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        rows[name] = json.loads(done.stdout.splitlines()[-1])
        print(*table({name: rows[name]})[2:], sep="\n", flush=True)
    passed, failed = (tests.stdout.count(f"\n{word} ") for word in ("PASSED", "FAILED"))
    said = f"{passed} passed, {failed} failed" if tests.returncode in (0, 1) else "could not be run"
    (ROOT / "results" / "gpu.md").write_text(page(said, rows))
    return tests.returncode


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        print("\n" + json.dumps(measured(json.loads(sys.argv[2]))))
    else:
        sys.exit(main())
