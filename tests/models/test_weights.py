"""Weights are read whole, or the model is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bitsandbytes import functional
from bitsandbytes.nn import modules
from saved_models import GPT2, loaded, saved
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPT2Model,
    PreTrainedModel,
)

from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig, load_language_model
from rlgf.models.lora import Adapters, LoRAConfig
from rlgf.models.trial import check_trainable
from rlgf.models.weights import Quantization, quantized
from rlgf.run.checkpoint import save_policy
from toys import letter_gpt


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    folder = saved(GPT2LMHeadModel(GPT2Config(**GPT2)), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_positions": 64}))
    with pytest.raises(UserError, match=r"'transformer.wpe.weight' has the shape \(32, 16\)"):
        loaded(folder)


@pytest.mark.parametrize("kind", [GPT2LMHeadModel, GPT2Model, GPT2ForSequenceClassification])
def test_a_head_that_is_tied_is_not_missing(kind: type[PreTrainedModel], tmp_path: Path) -> None:
    model = loaded(saved(kind(GPT2Config(**GPT2)), tmp_path)).model
    assert model.lm_head.weight is model.transformer.wte.weight


IDS = torch.tensor([[0, 1, 2, 3]])


@pytest.fixture
def folder(tmp_path: Path) -> str:
    save_policy(letter_gpt(width=64), tmp_path / "model")
    return str(tmp_path / "model")


def logits(model: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.model(IDS).logits
    return found


@pytest.mark.parametrize(("kind", "bytes_a_weight"), [("4bit", 0.5), ("8bit", 1.0)])
def test_weights_take_fewer_bits_and_say_almost_the_same(
    folder: str, kind: Quantization, bytes_a_weight: float
) -> None:
    whole = load_language_model(ModelConfig(model=folder))
    small = load_language_model(ModelConfig(model=folder, quantization=kind))
    weight = small.model.get_submodule("transformer.h.0.mlp.c_fc").weight
    assert weight.nbytes == bytes_a_weight * 64 * 256
    assert not torch.equal(logits(small), logits(whole))
    torch.testing.assert_close(logits(small), logits(whole), atol=0.05, rtol=0)


@pytest.mark.parametrize("kind", ["4bit", "8bit"])
def test_an_adapter_that_was_saved_is_merged_into_them(
    folder: str, kind: Quantization, tmp_path: Path
) -> None:
    policy = load_language_model(ModelConfig(model=folder))
    policy = replace(policy, adapters=Adapters(policy.model, LoRAConfig()))
    with torch.no_grad():
        for weight in policy.trained:
            weight.add_(0.1)
    save_policy(policy, tmp_path / "adapter")
    small = load_language_model(
        ModelConfig(model=str(tmp_path / "adapter"), quantization=kind, dtype="float32")
    )
    base = load_language_model(ModelConfig(model=folder))
    off, learned = ((logits(one) - logits(policy)).abs().mean() for one in (small, base))
    assert off < learned
    again = replace(small, adapters=Adapters(small.model, LoRAConfig()))
    again.model(IDS).logits.square().sum().backward()
    assert all(p.grad is not None for p in again.trained)


@pytest.mark.parametrize("kind", ["4bit", "8bit"])
def test_an_adapter_is_trained_over_them(folder: str, kind: Quantization) -> None:
    policy = load_language_model(ModelConfig(model=folder, quantization=kind, dtype="float32"))
    start = logits(policy)
    policy = replace(policy, adapters=Adapters(policy.model, LoRAConfig()))
    torch.testing.assert_close(logits(policy), start)
    policy.model(IDS).logits.square().sum().backward()
    assert policy.trained
    assert all(p.grad is not None and p.dtype == torch.float32 for p in policy.trained)
    assert all(p.grad is None for p in policy.model.parameters() if not p.requires_grad)


def test_gradients_pass_on_cpus_that_multiply_in_bfloat16(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There `bitsandbytes` would repack the weights for inference at the first pass without gradients."""
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: True)
    options = quantized("4bit", torch.float32, torch.device("cpu"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    policy = LanguageModel(model, AutoTokenizer.from_pretrained(folder))
    logits(policy)
    embedded = policy.model.get_input_embeddings()(IDS).detach().requires_grad_()
    policy.model(inputs_embeds=embedded).logits.square().sum().backward()
    assert embedded.grad is not None
    assert embedded.grad.abs().min() > 0


def test_a_model_that_was_run_before_is_refused_where_that_rewrote_its_weights(folder: str) -> None:
    model = load_language_model(ModelConfig(model=folder, quantization="4bit", dtype="float32")).model
    check_trainable(model)
    model.get_submodule("transformer.h.0.mlp.c_fc").weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(UserError, match="give it as it was loaded"):
        check_trainable(model)


def test_a_policy_without_an_adapter_is_refused() -> None:
    with pytest.raises(UserError, match="give 'model' and 'lora' with it"):
        load_config({"task": "imdb", "algorithm": "bc", "policy": {"model": "x", "quantization": "4bit"}})


def test_a_device_without_support_is_named_before_loading(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object, **__: object) -> None:
        raise NotImplementedError("no kernel")

    monkeypatch.setattr(functional, "quantize_4bit", unsupported)
    with pytest.raises(UserError, match=r"no support for the device 'cpu' \(no kernel\)"):
        load_language_model(ModelConfig(model=folder, quantization="8bit"))


def test_a_missing_library_is_named(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'rlgf\[quantization\]'"):
        load_language_model(ModelConfig(model=folder, quantization="4bit"))
