"""Processes that share the weights of a model learn what one does, and a checkpoint of theirs is everybody's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlgf import checks
from rlgf.config import load_config
from rlgf.models import sharding
from toys import letter_gpt

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
TESTS = Path(__file__).parents[1]
CASES = (
    "ppo++",
    "lols",
    "grpo",
    "luffy",
    "prefix-rft",
    "uft",
    "dagger",
    "chord",
    "hinted-grpo",
    "distill",
    "guided-dpo",
    "one trunk",
    "lora",
    "its own guide",
    "its own guide, lora",
    "encoder-decoder",
    "checkpointing",
    "top-k",
    "dialogues",
)
"""Of those of the script, which without names runs all."""
KEEPING = ("ppo++", "one trunk", "lora", "encoder-decoder", "checkpointing")
"""Of these, those that also run with layers that stay whole from the forward to the backward pass."""
SHARED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true"}
KEPT = {**SHARED, "FSDP_RESHARD_AFTER_FORWARD": "false"}
COPIES = {
    **SHARED,
    "ACCELERATE_USE_PARALLELISM_CONFIG": "true",
    "PARALLELISM_CONFIG_DP_REPLICATE_SIZE": "2",
    "PARALLELISM_CONFIG_DP_SHARD_SIZE": "2",
}
COPIED = ("ppo++", "lora")
"""Of these, those that also run in four processes, of which two and two share the weights."""


def launch(
    processes: int, script: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    spread = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*(spread if processes > 1 else []), str(TESTS / script), *arguments]
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case in one process, and in two that share the weights; and some in other ways."""
    root = tmp_path_factory.mktemp("sharded")
    starts = {
        "one": (1, CASES, {}),
        "two": (2, CASES, SHARED),
        "kept": (2, KEEPING, KEPT),
        "copies": (4, COPIED, COPIES),
    }
    for folder, (processes, cases, environment) in starts.items():
        done = launch(processes, "sharded_script.py", str(root / folder), *cases, **environment)
        assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, "two") for name in CASES),
        *((name, "kept") for name in KEEPING),
        *((name, "copies") for name in COPIED),
    ],
)
def test_processes_that_share_the_weights_learn_what_one_does(root: Path, name: str, how: str) -> None:
    folders = [root / "one", root / how]
    one, two = (load_file(*(folder / name).glob("*.safetensors")) for folder in folders)
    assert one.keys() == two.keys()
    # The optimizer of a discriminator divides by gradients that are next to nothing at first.
    tolerance = 1e-3 if name == "gail" else 1e-5
    for key, weight in one.items():
        if not key.endswith("c_attn.bias"):  # the bias of attention keys has no true gradient
            torch.testing.assert_close(two[key], weight, atol=tolerance, rtol=tolerance)
    logged = [json.loads((folder / "metrics.json").read_text())[name] for folder in folders]
    for mine, other in zip(*logged, strict=True):
        assert mine.keys() == other.keys()
        for key, value in mine.items():
            # Of a pair that is as good as even, rounding says which side is ahead.
            if not key.startswith(("seconds", "tokens_per_second", "pair_accuracy")):
                near = pytest.approx(value, abs=1e-4, rel=1e-4) if isinstance(value, float) else value
                assert other[key] == near, key


def test_a_checkpoint_of_shared_weights_goes_on_anyhow(tmp_path: Path) -> None:
    """In one process, in two that hold all of them, and in four that share one copy or two; and the other way round."""
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    assert launch(1, "resume_script.py", str(whole)).returncode == 0
    assert launch(2, "resume_script.py", str(shared), **SHARED).returncode == 0
    ends: dict[str, Any] = {}
    for name, start, processes, environment in (
        ("one", shared, 1, {}),
        ("two", shared, 2, {}),
        ("four", shared, 4, SHARED),
        ("two and two", shared, 4, COPIES),
        ("two from one", whole, 2, SHARED),
    ):
        half = shutil.copytree(start, tmp_path / name)
        shutil.rmtree(half / "checkpoints" / "000004")
        shutil.rmtree(half / "policy")
        (half / "summary.json").unlink()
        done = launch(processes, "resume_script.py", str(half), "--resume", **environment)
        assert done.returncode == 0, done.stderr[-3000:]
        ends[name] = load_file(half / "policy" / "model.safetensors")
    expected = load_file(whole / "policy" / "model.safetensors")
    for name, weights in ends.items():
        for key, weight in expected.items():
            if not key.endswith("c_attn.bias"):
                torch.testing.assert_close(
                    weights[key], weight, atol=1e-4, rtol=1e-3, msg=lambda said, name=name: f"{name}: {said}"
                )


def test_a_failure_of_one_process_ends_all_at_once(tmp_path: Path) -> None:
    """Nobody waits in an exchange of weights, or in the writing of a checkpoint, for the one that failed."""
    done = launch(2, "shared_failures_script.py", str(tmp_path), **SHARED)
    assert done.returncode == 0, done.stderr[-3000:]
    main, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert "the disk is full: the checkpoint of update 2" in main["a full disk"]
    assert other["a full disk"].startswith("FailedElsewhereError: process 0 of 2 failed: the disk is full")
    assert "Input/output error" in main["a disk that cannot be read"]
    assert other["a disk that cannot be read"].startswith("FailedElsewhereError: process 0 of 2 failed")
    assert other["a reward without a state"].startswith("ValueError: no state")
    assert main["a reward without a state"].startswith("FailedElsewhereError: process 1 of 2 failed")
    for said in (main, other):
        assert "The newest checkpoint is that of update 1" in said["a reward without a state"]
        assert said["nothing"] == "finished"
    assert main["a loss of both"].startswith("ValueError: a bad loss")
    assert other["a loss of both"].startswith(
        "FailedElsewhereError: process 0 of 2 failed: ValueError: a bad"
    )
    assert other["a loss of one"].startswith("ValueError: a bad loss")
    assert main["a loss of one"].startswith("LostProcessError: another process of the run has ended")
    assert max(main["seconds"], other["seconds"]) < 60, "and not as long as one process waits for another"
    assert main["weights"].startswith("LostProcessError")


@pytest.mark.parametrize("environment", [SHARED, KEPT])
def test_layers_are_let_go_between_the_passes_or_stay(environment: dict[str, str]) -> None:
    done = launch(2, "kept_layers_script.py", **environment)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_weights_of_the_main_process_stay_where_they_are_until_they_are_shared_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FSDP moves what each parameter holds to the GPU, which need not have room for all of them."""
    model, given = letter_gpt().model, {}
    before = {name: weight.clone() for name, weight in model.named_parameters()}

    def moves(module: torch.nn.Module, **options: Any) -> None:
        for parameter in module.parameters():
            parameter.data = torch.zeros_like(parameter)

    for name, value in SHARED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sharding, "fully_shard", moves)
    monkeypatch.setattr(sharding, "fill", lambda own, weights: given.update(weights))
    monkeypatch.setattr(sharding.distributed, "mesh", lambda shares: None)
    sharding.shard(model, "the policy", from_main=True)
    assert all(torch.equal(given[name], weight) for name, weight in before.items())


def test_critics_of_shared_adapters_are_refused_before_a_model_loads() -> None:
    recipe = {
        "task": "letters",
        "reward": "own",
        "policy": {"model": "none", "lora": {}},
        "algorithm": "ppo",
    }
    assert any("set 'policy.critic: head'" in said for said in checks.broken_by_shards(load_config(recipe)))
    headed = load_config(recipe, {"policy": {"critic": "head"}})
    assert not list(checks.broken_by_shards(headed))
    starts = list(checks.broken_by_shards(load_config(recipe, "algorithm=a-star-po")))
    assert any("processes meet new prompts at different times" in said for said in starts)
