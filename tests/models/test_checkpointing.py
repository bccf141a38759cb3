"""Layers that are computed a second time teach the same, and keep less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from rlgf.errors import UserError
from rlgf.models.abilities import abilities, declare
from rlgf.models.checkpointing import enable, recomputed, recomputes
from rlgf.models.critic import build_critic
from rlgf.models.forward import Tokens, response_outputs
from rlgf.models.language_model import LanguageModel
from rlgf.models.memory import shape
from toys import letter_gpt, letter_t5
from training_toys import build

CASES: dict[str, dict[str, Any]] = {
    "separate": {"algorithm": "ppo"},
    "head": {"algorithm": "ppo++", "critic": "head"},
    "two critics": {"algorithm": "lols"},
    "pairs": {"algorithm": "guided-dpo"},
    "adapters": {"algorithm": "ppo", "lora": {"r": 2}},
    "encoder-decoder": {"algorithm": "ppo"},
}


def deep_gpt() -> LanguageModel:
    return letter_gpt(layers=3)


def learned(
    case: dict[str, Any], policy: LanguageModel, *, checkpointing: bool, shares: bool
) -> dict[str, Tensor]:
    """Every trained weight after two updates."""
    declare(policy.model, replace(abilities(policy.model), shared_prompts=shares))
    trainer = build(**case, policy=policy, update={"gradient_checkpointing": checkpointing})
    for _ in range(2):
        trainer.step()
    return {
        f"{name} {number}": weight.detach()
        for name, weights in trainer.parts.updater.parameters.items()
        for number, weight in enumerate(weights)
    }


@pytest.mark.parametrize("name", CASES)
def test_weights_are_the_same_to_the_bit(name: str) -> None:
    make = letter_t5 if name == "encoder-decoder" else deep_gpt
    plain, again = (
        learned(CASES[name], make(), checkpointing=checkpointing, shares=False)
        for checkpointing in (False, True)
    )
    assert plain.keys() == again.keys()
    for key, weight in plain.items():
        assert torch.equal(again[key], weight), key


def test_where_equal_prompts_would_be_read_once_only_rounding_differs() -> None:
    """With layers that are computed again each text is read whole."""
    case = {"algorithm": "grpo", "rollout": {"max_prompt_tokens": 2}}
    plain, again = (
        learned(case, deep_gpt(), checkpointing=checkpointing, shares=True) for checkpointing in (False, True)
    )
    for key, weight in plain.items():
        torch.testing.assert_close(again[key], weight, atol=1e-4, rtol=1e-4)


def tokens() -> Tokens:
    prompts, responses = torch.arange(32).view(4, 8) % 4, torch.arange(32).view(4, 8) % 3
    return Tokens(prompts, torch.ones_like(prompts).bool(), responses, torch.ones_like(responses).bool())


def kept_numbers(run: Callable[[], Any], weights: list[Tensor]) -> int:
    """How many numbers autograd keeps for a backward pass, weights left out."""
    own, found = {weight.untyped_storage().data_ptr() for weight in weights}, {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(found.values())


@pytest.mark.parametrize("what", ["policy", "critic"])
def test_little_more_than_the_inputs_of_the_layers_is_kept(what: str) -> None:
    model = letter_gpt(layers=8).model
    declare(model, replace(abilities(model), shared_prompts=False))
    layers = shape(model).response
    everything, left = layers.activations, layers.borders
    kept = []
    for checkpointing in (False, True):
        if checkpointing:
            enable(model)
        critic = build_critic("separate", model)

        def run(critic: torch.nn.Module = critic) -> Any:
            return response_outputs(model, tokens()) if what == "policy" else critic(tokens(), None)

        kept.append(
            kept_numbers(run, [*model.parameters(), *critic.parameters()]) / tokens().prompt_ids.numel() / 2
        )
    assert kept[0] > everything * 0.9
    assert left <= kept[1] < 2 * left


def test_what_makes_no_gradient_runs_as_before() -> None:
    model = letter_gpt().model
    enable(model)
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    before = [module.training for module in model.modules()]
    assert recomputes(model)
    with recomputed(model):
        assert all(layer.training for layer in layers)
        assert sum(module.training for module in model.modules()) == sum(before) + len(layers)
    assert [module.training for module in model.modules()] == before
    with torch.no_grad():
        assert not recomputes(model)
        with recomputed(model):
            assert [module.training for module in model.modules()] == before


def test_a_model_that_cannot_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = letter_gpt()
    monkeypatch.setattr(type(policy.model), "supports_gradient_checkpointing", False)
    with pytest.raises(UserError, match=r"'update.gradient_checkpointing' does not fit .* GPT2LMHeadModel"):
        build("ppo", policy=policy, update={"gradient_checkpointing": True})
