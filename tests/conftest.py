"""Fixtures that every test may use. Nothing here reaches a network.

`rlgf` is imported inside the fixtures: pytest reads this file before jaxtyping installs the import
hook that checks shapes, and a module that is imported by then stays unchecked.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import pytest
import torch
from hypothesis import settings
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

if TYPE_CHECKING:
    from rlgf.models.language_model import LanguageModel

Model = TypeVar("Model", bound=PreTrainedModel)

# Small tensors gain nothing from threads, and one thread always sums in the same order.
torch.set_num_threads(1)

settings.register_profile("rlgf", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("rlgf")

SENTENCES = [
    "The film was a joy from the first scene to the last.",
    "I have rarely been so bored in a cinema.",
    "She plays the part with wit, and the music is lovely.",
    "He leaves the house, buys bread and walks home in the rain.",
]

ROTARY: dict[str, Any] = {
    "vocab_size": 16,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}


def sharpen(model: Model, factor: float = 4.0) -> Model:
    """Scale the weights up, so that a wrong position or a wrong mask shows in the output.

    A model straight from its initialisation attends to everything alike and calls all tokens
    about as likely.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(factor)
    model.eval()
    return model


@pytest.fixture(scope="session")
def language_model() -> LanguageModel:
    """A random GPT-2 (2 layers, width 32) and its byte-level BPE; its pad token is its end of text.

    Shared by the whole session: a test that trains takes a deep copy.
    """
    from rlgf.models.language_model import LanguageModel
    from rlgf.models.scratch import ScratchConfig, build_scratch

    config = ScratchConfig(vocabulary=300, layers=2, heads=2, width=32, context=64)
    model, tokenizer = build_scratch(config, SENTENCES)
    return LanguageModel(sharpen(model), tokenizer)


@pytest.fixture(scope="session")
def tiny_gpt2() -> PreTrainedModel:
    """A random GPT-2 with 16 tokens, of which 0 ends a text, and 64 positions.

    With so few tokens a sampled text often ends early. Shared by the whole session: a test that
    trains takes a deep copy.
    """
    config = GPT2Config(
        vocab_size=16,
        n_layer=2,
        n_head=2,
        n_embd=32,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return sharpen(GPT2LMHeadModel(config))


@pytest.fixture(scope="session")
def tiny_llama() -> PreTrainedModel:
    """As `tiny_gpt2`, with rotary positions and grouped keys."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return sharpen(LlamaForCausalLM(LlamaConfig(**ROTARY)))


@pytest.fixture(scope="session")
def tiny_mistral() -> PreTrainedModel:
    """As `tiny_llama`, with attention that sees 6 positions back."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return sharpen(MistralForCausalLM(MistralConfig(**ROTARY, sliding_window=6)))
