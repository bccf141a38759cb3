"""A launcher that asks for DeepSpeed is answered with the lines for FSDP2 that do the same."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from rlgf.errors import UserError
from rlgf.models import from_deepspeed, launcher

WHOLE, LAYERS = (
    "with 'fsdp_reshard_after_forward: false', which",
    "with 'fsdp_reshard_after_forward: true', which",
)
EITHER = (
    "for DeepSpeed, .* with 'fsdp_reshard_after_forward: true' for ZeRO-3, or 'false' for ZeRO-1 and ZeRO-2"
)


def said(monkeypatch: pytest.MonkeyPatch, **settings: str) -> str:
    """What accelerate's launcher leaves in the environment, and the sentence about it."""
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    for name, value in settings.items():
        monkeypatch.setenv(f"ACCELERATE_DEEPSPEED_{name}", value)
    with pytest.raises(UserError) as raised:
        launcher.wanted()
    sentence = str(raised.value)
    assert sentence.startswith("the launcher asks for ")
    assert sentence.endswith(" (docs/scaling.md).")
    return sentence


def file(folder: Path, zero: Any) -> str:
    path = folder / "zero.json"
    path.write_text(json.dumps({"zero_optimization": zero}))
    return str(path)


def test_who_does_not_ask_for_deepspeed_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not from_deepspeed.asked()
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "false")
    assert not launcher.wanted()


@pytest.mark.parametrize(("stage", "line"), [("1", WHOLE), ("2", WHOLE), ("3", LAYERS)])
def test_each_stage_has_its_line(monkeypatch: pytest.MonkeyPatch, stage: str, line: str) -> None:
    sentence = said(monkeypatch, ZERO_STAGE=stage)
    assert f"asks for ZeRO-{stage} of DeepSpeed" in sentence
    assert "recipes/accelerate/fsdp2.yaml ('distributed_type: FSDP', 'fsdp_version: 2')" in sentence
    assert line in sentence
    assert "nothing leaves the GPU" not in sentence


def test_without_a_stage_it_is_that_of_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch) == said(monkeypatch, ZERO_STAGE="2")


def test_a_stage_that_shares_nothing_is_that_of_a_launcher_without_shards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sentence = said(monkeypatch, ZERO_STAGE="0")
    assert "set 'distributed_type: MULTI_GPU'" in sentence
    assert "FSDP" not in sentence


def test_what_leaves_the_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = {"OFFLOAD_OPTIMIZER_DEVICE": "cpu", "OFFLOAD_PARAM_DEVICE": "none"}
    sentence = said(monkeypatch, ZERO_STAGE="3", **devices)
    assert "; leave out 'offload_optimizer_device: cpu', since nothing leaves the GPU here" in sentence
    sentence = said(monkeypatch, OFFLOAD_PARAM_DEVICE="nvme")
    assert "leave out 'offload_optimizer_device: cpu' and 'offload_param_device: nvme', since" in sentence


def test_a_file_of_deepspeed_is_read_as_accelerate_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = {"stage": 3, "offload_param": {"device": "cpu"}}
    sentence = said(monkeypatch, CONFIG_FILE=file(tmp_path, inside), ZERO_STAGE="1")
    assert LAYERS in sentence
    assert "'offload_param_device: cpu'" in sentence
    # What it leaves to the launcher is the launcher's.
    assert WHOLE in said(monkeypatch, CONFIG_FILE=file(tmp_path, {"stage": "auto"}))
    text = json.dumps({"zero_optimization": inside}).encode()
    assert LAYERS in said(monkeypatch, CONFIG_FILE=base64.urlsafe_b64encode(text).decode())


@pytest.mark.parametrize("content", [None, "no JSON", "[]", '{"zero_optimization": {"stage": 7}}'])
def test_a_stage_that_nobody_knows_leaves_the_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    path = tmp_path / "zero.json"
    if content is not None:
        path.write_text(content)
    assert re.search(EITHER, said(monkeypatch, CONFIG_FILE=str(path)))
