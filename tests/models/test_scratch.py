"""Small models from nothing: their sizes, and that the same seed makes the same one."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from transformers import GPT2LMHeadModel, T5ForConditionalGeneration

from conftest import SENTENCES
from rlgf.models.scratch import END_OF_TEXT, ScratchConfig, architecture, build_scratch

SMALL = ScratchConfig(vocabulary=300, layers=1, heads=2, width=16, context=32)


def test_a_model_has_the_sizes_and_the_tokenizer_reads_the_texts() -> None:
    model, tokenizer = build_scratch(SMALL, SENTENCES)
    assert isinstance(model, GPT2LMHeadModel)
    assert (model.config.n_layer, model.config.n_embd, model.config.n_positions) == (1, 16, 32)
    assert model.config.vocab_size == len(tokenizer) <= 300
    assert tokenizer.decode(tokenizer(SENTENCES[0])["input_ids"]) == SENTENCES[0]
    assert tokenizer.eos_token == tokenizer.pad_token == END_OF_TEXT
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert not any(one.p for one in model.modules() if isinstance(one, torch.nn.Dropout))


def test_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = architecture(SMALL, 300, 0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    same, other = architecture(SMALL, 300, 0), architecture(SMALL.model_copy(update={"seed": 1}), 300, 0)
    embedded = [model.get_input_embeddings().weight for model in (one, same, other)]
    assert torch.equal(embedded[0], embedded[1])
    assert not torch.equal(embedded[0], embedded[2])


def test_layers_of_an_encoder_make_it_a_t5() -> None:
    model = architecture(SMALL.model_copy(update={"encoder_layers": 2}), 300, 7)
    assert isinstance(model, T5ForConditionalGeneration)
    assert (model.config.num_layers, model.config.num_decoder_layers) == (2, 1)
    assert model.generation_config.decoder_start_token_id == 7


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValidationError, match="'width' 30 must be a multiple of 'heads' 4"):
        ScratchConfig(width=30)
