"""Texts of vLLM teach as much as the policy's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_learning import trainer
from test_samplers import tiny_model

from engines import NEEDS_VLLM
from toys import letter_gpt

SEEDS = range(3)
UPDATES = 8
"""Few enough that a sampler that taught less would be behind."""


@pytest.mark.parametrize("engine", [pytest.param("vllm", marks=NEEDS_VLLM)])
@pytest.mark.parametrize("algorithm", ["ppo++", "guided-grpo"])
def test_it_learns_as_much_in_the_same_updates(tmp_path: Path, algorithm: str, engine: str) -> None:
    """The mean reward of three seeds: that of the built-in sampler, give or take what seeds differ by."""
    means = {name: _rewards(tmp_path / name, algorithm, name) for name in ("builtin", engine)}
    print(algorithm, means)
    own, other = (sum(found) / len(found) for found in means.values())
    assert own > 0.5
    assert other == pytest.approx(own, abs=0.1)


@pytest.mark.parametrize("engine", [pytest.param("vllm", marks=NEEDS_VLLM)])
def test_an_adapter_learns_with_it(tmp_path: Path, engine: str) -> None:
    learner = trainer(
        tmp_path,
        "grpo",
        tiny_model(letters="abcd"),
        sampler={"engine": engine, "cache_gib": 0.05},
        lora={"r": 8, "alpha": 16},
        training={"updates": UPDATES, "trackers": []},
        update={"minibatch": 32, "epochs": 1, "learning_rate": 1e-2},
    )
    said = [learner.step() for _ in range(UPDATES)]
    assert all(float(one["sampler_gap"]) < 1e-4 for one in said)
    assert float(said[-1]["reward"]) > float(said[0]["reward"]) + 0.3


def _rewards(folder: Path, algorithm: str, engine: str) -> list[float]:
    found = []
    for seed in SEEDS:
        learner = trainer(
            folder / str(seed),
            algorithm,
            letter_gpt(width=64, seed=seed),
            seed=seed,
            sampler={"engine": engine, "cache_gib": 0.05},
            training={"updates": UPDATES, "trackers": []},
            update={"minibatch": 32, "epochs": 1, "learning_rate": 3e-3},
        )
        for _ in range(UPDATES):
            said = learner.step()
            assert engine == "builtin" or float(said["sampler_gap"]) < 1e-4
        found.append(learner.evaluate().totals["reward"])
    return found
