"""Several processes whose texts another one writes learn what one process learns by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_processes import launch, metrics, run

from engines import NEEDS_VLLM, desk_of, serving
from resume_script import toy_trainer
from toys import letter_gpt

TESTS = Path(__file__).parents[1]


@pytest.mark.long
def test_two_processes_end_in_the_weights_of_one(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"algorithm": "guided-grpo"}
    toy_trainer(tmp_path / "one", **changes).train()
    with serving(desk_of(letter_gpt(seed=5))) as url:
        run(tmp_path / "two", 2, "--changes", json.dumps({**changes, "sampler": {"server": url}}))
    one, two = (load_file(tmp_path / name / "policy" / "model.safetensors") for name in ("one", "two"))
    start = letter_gpt().model.state_dict()
    assert max(float((weight - start[name]).abs().max()) for name, weight in one.items()) > 0.01
    for name, weight in one.items():
        if not name.endswith("c_attn.bias"):  # the bias of attention keys has no effect, and no true gradient
            torch.testing.assert_close(two[name], weight, atol=1e-4, rtol=1e-3)
    for mine, other in zip(*(metrics(tmp_path / name) for name in ("one", "two")), strict=True):
        for name in ("reward", "kl", "policy_tokens", "guide_tokens", "validation/reward"):
            assert other.get(name) == pytest.approx(mine.get(name), abs=1e-3), name
        assert other.get("sampler_gap", 0.0) < 1e-5


RECIPE: dict[str, Any] = {
    "name": "served",
    "task": "toys:LetterTask",
    "policy": {"scratch": {"context": 64, "layers": 1, "width": 64, "heads": 2}},
    "reward": "toys:share_of_a",
    "algorithm": "grpo",
    "rollout": {"episodes": 64, "max_prompt_tokens": 8, "max_response_tokens": 6},
    "update": {"minibatch": 32, "learning_rate": 1e-2, "epochs": 1},
    "training": {"updates": 6, "trackers": []},
    "evaluation": {"metrics": [], "samples": 8, "test_samples": 8, "every": 6},
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "engine", [pytest.param("builtin", marks=pytest.mark.long), pytest.param("vllm", marks=NEEDS_VLLM)]
)
def test_the_commands_that_a_user_starts(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process samples and two train, each started from the same recipe."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({**RECIPE, "sampler": {"engine": engine, "cache_gib": 0.05}}))
    log = tmp_path / "server.txt"
    with log.open("w") as file:
        command = [sys.executable, "-m", "rlgf", "serve-sampler", str(recipe), "--port", "0"]
        server = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ})
    try:
        # Where others use the core too, vLLM needs more than two minutes to start.
        until = time.monotonic() + 300
        while "train it with " not in log.read_text():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        address = log.read_text().split("train it with ")[1].split()[0]
        launch(2, TESTS / "command.py", "train", str(recipe), address, f"output={tmp_path / 'run'}")
    finally:
        server.terminate()
        server.wait()
    lines = [line for line in metrics(tmp_path / "run") if "sampler_gap" in line]
    assert len(lines) == 6
    assert all(line["sampler_gap"] < 1e-4 for line in lines)
    print([line["reward"] for line in lines])
    assert lines[-1]["reward"] > lines[0]["reward"] + 0.1
