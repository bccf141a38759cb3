"""The weights of a model in training become those of an engine, and none is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from test_samplers import tiny_model
from torch import Tensor, nn

from rlgf.errors import UserError
from rlgf.models.samplers import engine as engines
from rlgf.models.samplers.engine import dtype_of, hand_over


class Engine:
    """Stands for ``vllm.LLM``: a network whose loader passes over what it does not know."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.forgot = False

    def apply_model(self, function: Callable[[Any], Any]) -> list[Any]:
        network: Any = self.network
        network.load_weights = self._load
        return [function(network)]

    def _load(self, weights: Iterator[tuple[str, Tensor]]) -> set[str]:
        there = dict(self.network.named_parameters())
        known = {name: value for name, value in weights if name in there}
        for name, value in known.items():
            there[name].data.copy_(value)
        return set(known)

    def reset_prefix_cache(self) -> None:
        self.forgot = True


def test_all_weights_are_handed_over_or_it_is_said_which_is_not() -> None:
    model, engine = tiny_model(0), Engine(tiny_model(1).model)
    hand_over(model.model, engine)
    assert engine.forgot
    for one, other in zip(model.model.parameters(), engine.network.parameters(), strict=True):
        assert torch.equal(one, other)
    engine.network.register_parameter("another", nn.Parameter(torch.zeros(1)))
    with pytest.raises(UserError, match=r"weights of a LlamaForCausalLM .'another' got no weights"):
        hand_over(model.model, engine)


def test_an_engine_on_a_gpu_computes_in_half_whose_model_waits_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So it is behind a server: the engine is on the GPU, and the policy on the CPU only receives weights."""
    model = tiny_model(0).model
    assert (model.device.type, dtype_of(model)) == ("cpu", torch.float32)
    monkeypatch.setattr(engines, "device", lambda: torch.device("cuda", 0))
    assert dtype_of(model) is torch.bfloat16
    assert dtype_of(model.half()) is torch.float16
