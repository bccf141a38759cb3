"""What a model can do is found out once and goes with the model."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

import rlgf.models.abilities as module
from rlgf.errors import UserError
from rlgf.models.abilities import (
    Abilities,
    abilities,
    computes_in_half,
    declare,
    many_passes,
    mixed_precision,
    takes,
)
from rlgf.models.samplers.base import BuiltinSampler
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from toys import letter_gpt, letter_t5


def test_it_is_tried_once_and_goes_with_copies_and_the_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    model = letter_gpt().model
    asked: list[PreTrainedModel] = []

    def trial(model: PreTrainedModel) -> Abilities:
        asked.append(model)
        declare(model, Abilities(cache=False))
        return Abilities(cache=False)

    monkeypatch.setattr(module, "_trial", [trial])
    assert not abilities(model).cache
    assert not abilities(copy.deepcopy(model)).cache
    assert not abilities(model.base_model).cache
    assert asked == [model]
    declare(model, None)
    abilities(model)
    assert len(asked) == 2, "nothing is known of it any more"


class Trunk(nn.Module):
    def forward(self, ids: object, mask: object = None) -> None: ...


class Head(nn.Module):
    """Hands on what it does not know itself."""

    def __init__(self) -> None:
        super().__init__()
        self.base_model = Trunk()

    def forward(self, ids: object, labels: object = None, **others: object) -> None: ...


class StrictHead(Head):
    def forward(self, ids: object, labels: object = None) -> None: ...


def test_arguments_that_are_handed_on_count() -> None:
    assert takes(Head(), "labels")
    assert takes(Head(), "mask")
    assert not takes(Head(), "others")
    assert not takes(StrictHead(), "mask")
    assert takes(letter_t5().model, "decoder_input_ids")
    assert not takes(letter_gpt().model, "decoder_input_ids")


RECIPE: dict[str, Any] = {
    "task": "toys:LetterTask",
    "reward": "toys:share_of_a",
    "algorithm": "ppo",
    "rollout": {"episodes": 16, "max_prompt_tokens": 4, "max_response_tokens": 12},
    "update": {"minibatch": 16, "epochs": 1},
    "training": {"updates": 1, "trackers": []},
    "evaluation": {"samples": 8, "test_samples": 8},
}


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")


class Casts(TorchDispatchMode):
    """Counts how often a weight, of which no two have the same shape as a text's numbers, becomes bfloat16."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.shapes = {parameter.shape for parameter in model.parameters() if parameter.dim() == 2}
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and function is torch.ops.aten._to_copy.default:
            self.count += found.dtype == torch.bfloat16 and args[0].shape in self.shapes
        return found


@pytest.mark.usefixtures("half")
@pytest.mark.parametrize("trained", [True, False])
def test_a_weight_is_cast_once_for_all_passes(trained: bool) -> None:
    model = letter_gpt(layers=2).model.requires_grad_(trained)
    ids, before = torch.tensor([[0, 1, 2]]), list(model.parameters())
    with torch.no_grad(), mixed_precision(model.device):
        straight = model(input_ids=ids).logits
    with Casts(model) as casts, torch.no_grad(), many_passes(model):
        found = [model(input_ids=ids).logits for _ in range(3)]
    assert casts.count == 9, "four matrices a layer, and the head"
    assert all(torch.equal(logits, straight) for logits in found)
    after = list(model.parameters())
    assert all(
        one is other and one.requires_grad == trained for one, other in zip(before, after, strict=True)
    )


@pytest.mark.usefixtures("half")
def test_a_frozen_weight_that_another_thread_trains_through_stays_as_it_is() -> None:
    live = letter_gpt().model.requires_grad_(False)
    copy_of_it = copy.deepcopy(live, {id(weight): weight for weight in live.parameters()})
    with torch.no_grad(), many_passes(copy_of_it):
        assert all(weight.requires_grad for weight in copy_of_it.parameters())
        assert not any(weight.requires_grad for weight in live.parameters())


@pytest.mark.parametrize(
    ("asked", "on_cpu", "on_gpu"), [(None, False, True), ("no",) + (False,) * 2, ("bf16",) + (True,) * 2]
)
def test_the_launcher_says_how_passes_run(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, on_cpu: bool, on_gpu: bool
) -> None:
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if asked is not None:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    assert [computes_in_half(torch.device(one)) for one in ("cpu", "cuda")] == [on_cpu, on_gpu]
    with mixed_precision(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if on_cpu else torch.float32)


def test_another_precision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(UserError, match="the launcher asks for 'mixed_precision: fp16'"):
        computes_in_half(torch.device("cpu"))


@pytest.mark.usefixtures("half")
@pytest.mark.parametrize("steps", [0, 1])
def test_an_unchanged_policy_is_itself_in_half_precision(steps: int) -> None:
    """Written token by token and scored all at once, its probabilities are rounded otherwise."""
    training = {**RECIPE["training"], "async_steps": steps}
    # As wide as it takes for a CPU to add up in another order.
    policy = letter_gpt(width=1024, layers=2)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.mul_(2.0)
    trainer = Trainer({**RECIPE, "training": training}, policy=policy, display=Display(Console(quiet=True)))
    experience = trainer.assess(trainer.collect())
    rollout, reference = experience.rollout, experience.scored.reference_logprobs
    assert torch.equal(rollout.sampled_logprobs[rollout.authored], reference[rollout.authored])
    assert experience.importance is not None
    found = trainer.learn(experience)
    assert found["first_step_kl"] < 1e-6
    assert found["sampler_gap"] < 0.2


def test_weights_in_half_precision_round_too() -> None:
    """Such as those under an adapter: the launcher need not ask for it."""
    policy = letter_gpt()
    assert BuiltinSampler(policy, "policy").largest_gap is None
    policy.model.to(torch.bfloat16)
    assert BuiltinSampler(policy, "policy").largest_gap == math.inf
