"""Runs on a device apart from the CPU, which is emulated: all that a GPU would refuse because a tensor is elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
SCRIPT = Path(__file__).parents[1] / "emulated_script.py"
CASES = (
    "d2lols",
    "grpo",
    "vineppo",
    "luffy",
    "chord",
    "scaf-grpo",
    "distill",
    "gad",
    "guided-dpo",
    "a-star-po",
    "one trunk",
    "its own guide, lora",
    "encoder-decoder",
    "a search",
    "checkpointing",
    "top-k",
    "dialogues",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("devices")
    # In a process of its own, since the device is there for good.
    command = [sys.executable, str(SCRIPT), str(root), *CASES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.mark.parametrize("name", CASES)
def test_a_run_on_a_device_apart_ends_as_on_the_cpu(root: Path, name: str) -> None:
    cpu, device = (load_file(*(root / folder / name).glob("*.safetensors")) for folder in ("cpu", "emulated"))
    assert cpu.keys() == device.keys()
    for key, weight in cpu.items():
        torch.testing.assert_close(device[key], weight, atol=1e-5, rtol=1e-5)
    logged = [
        json.loads((root / folder / "metrics.json").read_text())[name] for folder in ("cpu", "emulated")
    ]
    for mine, other in zip(*logged, strict=True):
        assert mine.keys() == other.keys()
        for key, value in mine.items():
            if not key.startswith(("seconds", "tokens_per_second")):
                near = pytest.approx(value, abs=1e-5, rel=1e-5) if isinstance(value, float) else value
                assert other[key] == near, key


@pytest.mark.parametrize("name", CASES)
def test_gradients_do_not_wait_for_the_device_at_each_micro_batch(root: Path, name: str) -> None:
    read = json.loads((root / "emulated" / "reads.json").read_text())[name]
    # The weights that a selector gives are looked at once in each.
    places = {place.rpartition(":")[0].rpartition("/rlgf/")[2] for place in read}
    assert places == ({"learning/inputs.py"} if name == "chord" else set())
