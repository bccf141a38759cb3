"""Rules of the engines that write."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from unfit_parts import SOUND, refusal

from rlgf import checks
from rlgf.checks.engines import engines_are_installed
from rlgf.config import load_config
from rlgf.models.samplers import EngineConfig
from toys import letter_gpt

VLLM = "sampler.engine=vllm"
ENCODES = {"policy": {"scratch": {"context": 64, "encoder_layers": 2}}}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rollout.top_k=5"], "which training has to know: leave 'rollout.top_k' and 'rollout.top_p' out"),
        (["rollout.top_p=0.9"], "which training has to know: leave 'rollout.top_k' and 'rollout.top_p' out"),
        ([ENCODES], "vLLM runs no encoder-decoder models"),
        (["sampler.importance_bound=0.5"], "'sampler.importance_bound'"),
        (["sampler.engin=vllm"], "did you mean 'engine'"),
    ],
)
def test_what_vllm_cannot_do_is_one_sentence_before_models_load(
    overrides: list[Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EngineConfig, "installed", True)
    assert message in refusal(VLLM, *overrides)


def test_a_policy_in_fewer_bits_does_not_go_with_vllm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EngineConfig, "installed", True)
    letter_gpt(context=64).model.save_pretrained(tmp_path)
    policy = {"model": str(tmp_path), "lora": {}, "scratch": None}
    load_config(SOUND, VLLM, {"policy": policy})
    policy["quantization"] = "4bit"
    assert "are kept in fewer bits: leave 'quantization' out" in refusal(VLLM, {"policy": policy})


SERVER = "sampler.server=http://127.0.0.1:8300"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([SERVER, "rollout.top_k=5"], "'sampler.server' does not say which tokens top-k and top-p left"),
        ([SERVER, VLLM, ENCODES], "vLLM runs no encoder-decoder models"),
        (["sampler.server=127.0.0.1:8300"], "it must be an address with its port, such as http://127.0.0.1"),
        (["sampler.server=http://127.0.0.1"], "it must be an address with its port"),
        (["sampler.server=http://me:secret@127.0.0.1:80"], "it must be an address with its port"),
        (["sampler.server=http://127.0.0.1:99999"], "it must be an address with its port"),
    ],
)
def test_what_a_server_cannot_do_is_one_sentence(overrides: list[Any], message: str) -> None:
    assert message in refusal(*overrides)


def test_where_texts_are_written_does_not_make_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineConfig, "installed", True)
    assert load_config(SOUND, VLLM).identity == load_config(SOUND, VLLM, SERVER).identity


def test_an_engine_behind_a_server_need_not_be_installed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    load_config(SOUND, VLLM, SERVER)
    load_config(SOUND, SERVER, ENCODES)


def test_an_engine_in_several_processes_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineConfig, "installed", True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = "'engine: vllm' runs in one process, and there are 2: "
    assert f"{said}start it by itself with 'rlgf serve-sampler'" in refusal(VLLM)
    guide = {"guide": {"model": "gpt2", "sampler": {"engine": "vllm"}}}
    found = list(checks.broken_parts(load_config({**SOUND, "guide": None}, guide), ["sampler"]))
    assert found == [
        f"{said}serve the guide with 'vllm serve' and name it as 'guide.url', or set 'engine: builtin'."
    ]
    assert list(checks.broken_parts(load_config(SOUND, VLLM, SERVER), ["sampler"])) == []
    assert list(checks.broken_parts(load_config(SOUND))) == []


def test_two_engines_on_a_gpu_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineConfig, "installed", True)
    guide = {"guide": {"model": "gpt2", "sampler": {"engine": "vllm"}}}
    recipe = {**SOUND, "guide": None}
    both, behind = (load_config(recipe, guide, VLLM, *more) for more in ([], [SERVER]))
    assert list(checks.broken_parts(both, ["sampler"])) == []
    monkeypatch.setattr("rlgf.distributed.device", lambda: torch.device("cuda", 0))
    (said,) = checks.broken_parts(both, ["sampler"])
    assert said.startswith(
        "the recipe asks for 2 engines of vLLM in one process, and on a GPU only one of them"
    )
    for sound in (behind, load_config(recipe, guide), load_config(SOUND, VLLM)):
        assert list(checks.broken_parts(sound, ["sampler"])) == []


def test_a_guide_in_fewer_bits_does_not_go_with_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineConfig, "installed", True)
    letter_gpt(context=64).model.save_pretrained(tmp_path)
    guide = {"model": str(tmp_path), "quantization": "4bit", "sampler": {"engine": "vllm"}}
    assert "are kept in fewer bits: leave 'quantization' out" in refusal({"guide": guide})


def test_an_engine_that_is_not_there_names_its_section(monkeypatch: pytest.MonkeyPatch) -> None:
    guide = {"guide": {"model": "gpt2", "sampler": {"engine": "vllm"}}}
    with monkeypatch.context() as installed:
        installed.setattr(EngineConfig, "installed", True)
        config = load_config({**SOUND, "guide": None}, guide)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "'guide.sampler.engine: vllm' needs vLLM" in (engines_are_installed(config) or "")
