"""The estimate of a run's memory: by hand, and beside what tensors really take."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.guides.local import LocalGuideConfig
from rlgf.models.memory import Size
from rlgf.models.samplers.config import EngineConfig, SamplerConfig
from rlgf.run import memory, models
from rlgf.run.build import build_parts
from rlgf.run.memory import Launch, estimated

WIDTH, LAYERS, VOCABULARY = 32, 3, 300
PROMPT, RESPONSE, MINIBATCH = 4, 6, 8
RECIPE: dict[str, Any] = {
    "task": "toys:LetterTask",
    "policy": {
        "scratch": {"vocabulary": VOCABULARY, "layers": LAYERS, "width": WIDTH, "heads": 2, "context": 64}
    },
    "reward": "toys:share_of_a",
    "algorithm": "ppo",
    "rollout": {"episodes": 16, "max_prompt_tokens": PROMPT, "max_response_tokens": RESPONSE},
    "update": {"minibatch": MINIBATCH},
    "evaluation": {"samples": 8, "test_samples": 8},
}
LAYER = 12 * WIDTH**2 + 13 * WIDTH
TRUNK = (VOCABULARY + 64 + 2) * WIDTH + LAYERS * LAYER
SHARED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


def environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_who_lets_another_process_write_holds_no_keys_and_values() -> None:
    found = estimated(load_config(RECIPE, "sampler.server=http://127.0.0.1:8300", "sampler.engine=vllm"))
    assert found.phases["writing"].keys() == {"weights", "moments of AdamW"}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_engines_hold_weights_and_a_cache_each(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    engine = EngineConfig(engine="vllm", cache_gib=0.5)
    guide = LocalGuideConfig(model="made by hand", sampler=engine)
    config = load_config(RECIPE).model_copy(update={"sampler": SamplerConfig(engine="vllm"), "guide": guide})
    monkeypatch.setattr(memory, "device", lambda: torch.device(device))
    monkeypatch.setattr(memory, "frozen_size", lambda who, model: Size(who, 1000, 4000))
    found = {phase: parts.get("vLLM") for phase, parts in estimated(config).phases.items()}
    if device == "cpu":
        # With its weights packed beside them, and always there.
        held = 2 * (4 * TRUNK + 4000) + 2**31 + 2**29
        assert found == dict.fromkeys(("writing", "scoring", "learning", "saving"), held)
    else:
        held = 2 * TRUNK + 4000 + 2**31 + 2**29
        assert found == {"writing": held, "scoring": None, "learning": None, "saving": None}


def test_each_part_is_its_formula() -> None:
    found = estimated(load_config(RECIPE))
    critic, tokens = TRUNK + WIDTH + 1, 16 * (PROMPT + RESPONSE)
    trained = TRUNK + critic
    weights = {"weights": 4 * (TRUNK + trained), "moments of AdamW": 8 * trained}
    assert found.phases["writing"] == {
        **weights,
        "keys and values": 4 * 2 * LAYERS * WIDTH * tokens,
        "activations": 4 * 5 * WIDTH * 16 * PROMPT,
        "logits": 4 * 3 * 16 * VOCABULARY,
    }
    assert found.phases["learning"] == {
        **weights,
        "gradients": 4 * trained,
        "copy to go back to": 12 * trained,
        "activations": 4 * 16 * WIDTH * LAYERS * MINIBATCH * (PROMPT + RESPONSE),
        "logits": 4 * 4 * MINIBATCH * RESPONSE * VOCABULARY,
    }
    assert found.phases["saving"] == {**weights, "what is written": 2 * (8 * trained + 4 * critic)}
    assert found.least() == 4 * TRUNK + 16 * trained
    assert found.least(adam=False) == 4 * TRUNK + 8 * trained
    assert found.least(trains=False) == 4 * (TRUNK + trained)


def test_in_half_precision_numbers_are_halved_and_weights_are_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = estimated(load_config(RECIPE)).phases
    adapted = {**RECIPE, "policy": {**RECIPE["policy"], "lora": {"r": 2}, "critic": "head"}}
    environment(monkeypatch, ACCELERATE_MIXED_PRECISION="bf16")
    found, critic = estimated(load_config(RECIPE)).phases, TRUNK + WIDTH + 1
    assert 2 * found["writing"]["keys and values"] == whole["writing"]["keys and values"]
    cast = {phase: parts.get("weights in bfloat16") for phase, parts in found.items()}
    assert cast == {"writing": 2 * critic, "scoring": 2 * critic, "learning": 2 * critic, "saving": None}
    # Where texts are scored, frozen weights are cast in each product.
    found = estimated(load_config(adapted)).phases
    assert found["scoring"]["weights in bfloat16"] < 2 * TRUNK / 10
    assert found["writing"]["weights in bfloat16"] == 2 * TRUNK
    assert found["learning"]["weights in bfloat16"] == 2 * TRUNK


def test_sampling_ahead_takes_copies_and_writes_meanwhile() -> None:
    plain, found = estimated(load_config(RECIPE)), estimated(load_config(RECIPE, "training.async_steps=2"))
    weights = {"weights", "moments of AdamW"}
    writing = sum(size for part, size in plain.phases["writing"].items() if part not in weights)
    for phase, parts in plain.phases.items():
        more = {} if phase == "writing" else {"sampling ahead": writing}
        assert found.phases[phase] == {**parts, "copies of the policy's weights": 2 * 4 * TRUNK, **more}
    assert found.least() - plain.least() == 2 * 4 * TRUNK


def test_processes_that_share_the_weights_hold_their_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = estimated(load_config(RECIPE))
    environment(monkeypatch, WORLD_SIZE="4", **SHARED)
    found = estimated(load_config(RECIPE))
    assert found.launch == Launch(4, 4, sharing=4)
    for part in ("weights", "moments", "gradients"):
        assert getattr(found, part) == pytest.approx(getattr(alone, part) / 4, abs=4)
    assert found.phases["loading"] == {"weights": alone.weights}
    # One process of the machine loads them.
    assert found.least(trains=False) == found.weights
    critic = TRUNK + WIDTH + 1
    gathered = {phase: parts.get("gathered weights") for phase, parts in found.phases.items()}
    one_layer = TRUNK - (LAYERS - 1) * LAYER
    assert gathered == {
        "loading": None,
        "writing": 4 * TRUNK,
        "scoring": 4 * (2 * TRUNK + critic),
        "learning": 4 * one_layer,
        "saving": None,
    }
    environment(monkeypatch, ACCELERATE_MIXED_PRECISION="bf16")
    assert estimated(load_config(RECIPE)).phases["writing"]["gathered weights"] == 2 * TRUNK
    sizes = {"PARALLELISM_CONFIG_DP_REPLICATE_SIZE": "2", "PARALLELISM_CONFIG_DP_SHARD_SIZE": "2"}
    environment(monkeypatch, ACCELERATE_USE_PARALLELISM_CONFIG="true", **sizes)
    copied = estimated(load_config(RECIPE))
    assert copied.weights == pytest.approx(alone.weights / 2, abs=4)
    assert (
        copied.launch.words
        == "each of 4 processes, of which 2 at a time share the weights (FSDP2 with copies)"
    )
    environment(monkeypatch, ACCELERATE_USE_FSDP="false")
    assert estimated(load_config(RECIPE)).weights == alone.weights


def test_weights_that_stay_gathered_for_the_backward_pass_are_those_of_the_largest_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment(monkeypatch, WORLD_SIZE="4", **SHARED, FSDP_RESHARD_AFTER_FORWARD="false")
    separate = estimated(load_config(RECIPE))
    assert separate.phases["learning"]["gathered weights"] == 4 * (TRUNK + WIDTH + 1)
    adapted = {**RECIPE, "policy": {**RECIPE["policy"], "lora": {"r": 2}, "critic": "head"}}
    assert estimated(load_config(adapted)).phases["learning"]["gathered weights"] == 4 * TRUNK


@pytest.mark.parametrize("asked", [{"ACCELERATE_USE_DEEPSPEED": "true"}, {**SHARED, "FSDP_VERSION": "1"}])
def test_a_launcher_that_cannot_be_had_is_said(
    monkeypatch: pytest.MonkeyPatch, asked: dict[str, str]
) -> None:
    environment(monkeypatch, **asked)
    with pytest.raises(UserError, match="the launcher asks for"):
        estimated(load_config(RECIPE))


def test_a_run_that_cannot_fit_is_refused_before_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(RECIPE)
    needed = estimated(config).least()
    monkeypatch.setattr(memory, "device_bytes", lambda: 2 * needed - 2)
    memory.require_room(config)
    environment(monkeypatch, LOCAL_WORLD_SIZE="2", WORLD_SIZE="2")
    memory.require_room(config, adam=False)
    memory.require_room(config, trains=False)
    monkeypatch.setattr(models, "load_language_model", lambda *unused: pytest.fail("a model was loaded"))
    said = r"this machine has .* for each of 2 processes, each of which holds all weights \(DDP\)"
    with pytest.raises(UserError, match=said):
        build_parts(config)


def test_models_that_are_not_there_are_left_to_their_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "device_bytes", lambda: 0)
    memory.require_room(load_config({**RECIPE, "policy": {"model": "nowhere/at-all"}}))
