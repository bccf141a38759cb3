"""How much the passes of a model hold, beside what tensors really take."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from rlgf.models.kv_cache import cache_argument, reserving_cache
from rlgf.models.memory import shape
from rlgf.models.weights import fuse
from toys import letter_t5


def gpt2() -> PreTrainedModel:
    size = {"n_embd": 64, "n_layer": 3, "n_head": 2, "n_positions": 64, "vocab_size": 50}
    return GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0))


def llama() -> PreTrainedModel:
    size = {"hidden_size": 64, "intermediate_size": 170, "num_hidden_layers": 3, "vocab_size": 50}
    return LlamaForCausalLM(LlamaConfig(**size, num_attention_heads=4, num_key_value_heads=2))


def kept_bytes(model: PreTrainedModel, ids: torch.Tensor) -> int:
    """Bytes that autograd keeps for the backward pass, weights and logits left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=1)
    return sum(found.values())


@pytest.mark.parametrize("make", [gpt2, llama])
def test_what_autograd_keeps_is_near_the_formula(make: Any) -> None:
    """GPT-2 keeps nothing else; models with a gate and a rotation keep a fifth more."""
    model = make().eval()
    fuse(model)
    ids = torch.ones(4, 48, dtype=torch.long)
    formula = 4 * shape(model).response.kept(ids.numel(), 48, checkpointing=False)
    assert 1.0 <= kept_bytes(model, ids) / formula <= 1.35


@pytest.mark.parametrize("make", [gpt2, llama])
def test_keys_and_values_are_those_of_the_real_cache(make: Any) -> None:
    model = make().eval()
    cache = reserving_cache(model, 2, 10)
    with torch.no_grad():
        model(input_ids=torch.ones(2, 10, dtype=torch.long), use_cache=True, **{cache_argument(model): cache})
    taken = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert taken == 4 * shape(model).cache * 2 * 10


def test_an_encoder_reads_prompts_and_a_decoder_responses() -> None:
    found = shape(letter_t5().model)
    # Of one layer each: attention of width 32, and a network of width 64; the decoder has attention twice.
    assert found.prompt.activations == 4 * 64 + 2 * 96
    assert found.response.activations == 8 * 64 + 2 * 96
