"""What a recipe says of where tokens come from."""

from __future__ import annotations

from typing import Any

import pytest
from unfit_parts import SOUND

from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.models.loading import ModelConfig
from rlgf.models.samplers import EngineConfig, SamplerConfig, VLLMSampler
from rlgf.models.samplers.config import (
    NO_ENCODERS,
    cannot_run,
    cannot_start,
    cannot_train,
    in_several_processes,
    no_sets,
)
from rlgf.models.sampling import Sampling
from rlgf.models.scratch import ScratchConfig
from toys import letter_t5


def test_a_run_of_before_there_were_samplers_can_be_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineConfig, "installed", True)
    guide = {"guide": {"model": "gpt2"}}
    base = {key: value for key, value in SOUND.items() if key != "guide"}
    before = load_config(base, guide).identity
    assert "sampler" not in before
    assert "sampler" not in before["guide"]
    now = load_config(base, guide, "sampler.engine=vllm", "guide.sampler.engine=vllm").identity
    assert now["sampler"]["engine"] == now["guide"]["sampler"]["engine"] == "vllm"


VLLM, BUILTIN = SamplerConfig(engine="vllm"), SamplerConfig()
SERVED = SamplerConfig(server="http://127.0.0.1:8300")


def test_a_model_that_is_there_is_looked_at() -> None:
    with pytest.raises(UserError, match="vLLM runs no encoder-decoder models"):
        VLLMSampler(letter_t5(), "policy", trained=True)


@pytest.mark.parametrize("sampling", [{}, {"top_k": 5}, {"top_p": 0.9}])
def test_an_engine_apart_does_not_say_what_was_left_to_draw_from(sampling: dict[str, Any]) -> None:
    drawn = Sampling(**sampling)
    assert cannot_train(VLLM, drawn) == (no_sets("engine: vllm") if sampling else None)
    assert cannot_train(SERVED, drawn) == (no_sets("server") if sampling else None)
    assert cannot_train(BUILTIN, drawn) is None


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
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert "there are 3" in (in_several_processes(VLLM) or "")
    assert in_several_processes(BUILTIN) is None
    assert in_several_processes(SERVED) is None
