"""What a recipe says of where tokens come from."""

from __future__ import annotations

import pytest
from unfit_parts import SOUND

from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.models.samplers import EngineConfig, VLLMSampler
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


def test_a_model_that_is_there_is_looked_at() -> None:
    with pytest.raises(UserError, match="vLLM runs no encoder-decoder models"):
        VLLMSampler(letter_t5(), "policy", trained=True)
