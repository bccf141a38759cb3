"""What vLLM cannot do, one sentence each, and that the built-in engine can do it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rlgf.models.loading import ModelConfig
from rlgf.models.lora import Adapters, LoRAConfig
from rlgf.models.samplers import EngineConfig, SamplerConfig
from rlgf.models.samplers.rules import (
    NO_ADAPTERS,
    NO_ENCODERS,
    NO_SETS,
    cannot_run,
    cannot_start,
    cannot_train,
    in_several_processes,
    unfit,
)
from rlgf.models.sampling import Sampling
from rlgf.models.scratch import ScratchConfig
from toys import letter_gpt, letter_t5

VLLM, BUILTIN = SamplerConfig(engine="vllm"), SamplerConfig()


def test_a_model_that_is_there_is_looked_at() -> None:
    assert unfit(letter_gpt()) is None
    assert unfit(letter_t5()) == NO_ENCODERS
    plain = letter_gpt()
    adapted = replace(plain, adapters=Adapters(plain.model, LoRAConfig(r=2)))
    assert unfit(adapted) == NO_ADAPTERS


@pytest.mark.parametrize(
    ("sampling", "adapter", "sentence"),
    [({}, False, None), ({"top_k": 5}, False, NO_SETS), ({"top_p": 0.9}, True, NO_SETS), ({}, True, NO_ADAPTERS)],
)  # fmt: skip
def test_how_a_policy_samples_and_what_of_it_is_trained(
    sampling: dict[str, Any], adapter: bool, sentence: str | None
) -> None:
    assert cannot_train(VLLM, Sampling(**sampling), adapter=adapter) == sentence
    assert cannot_train(BUILTIN, Sampling(**sampling), adapter=adapter) is None


def test_a_model_is_known_by_its_configuration() -> None:
    encoder = ScratchConfig(encoder_layers=1)
    assert cannot_run(VLLM, encoder) == NO_ENCODERS
    assert cannot_run(VLLM, ScratchConfig()) is None
    assert cannot_run(BUILTIN, ModelConfig(model="nowhere")) is None, "nobody looks"


def test_an_engine_that_is_not_there_names_its_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "'guide.sampler.engine: vllm' needs vLLM" in (cannot_start(VLLM, "guide.sampler") or "")
    assert cannot_start(EngineConfig(), "sampler") is None


def test_several_processes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_several_processes(VLLM) is None
    monkeypatch.setattr("rlgf.distributed.count", lambda: 3)
    assert "there are 3" in (in_several_processes(VLLM) or "")
    assert in_several_processes(BUILTIN) is None
