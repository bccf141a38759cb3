"""A small model from nothing: random weights and a byte-level BPE tokenizer fitted to the task's text."""

from __future__ import annotations

from pydantic import Field, model_validator
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from rlgf import seeding
from rlgf.strict import Strict

END_OF_TEXT = "<|endoftext|>"


class ScratchConfig(Strict):
    """Sizes of a GPT-2, or of a T5, that starts from random weights."""

    vocabulary: int = Field(default=4096, ge=257)
    layers: int = Field(default=4, ge=1)
    encoder_layers: int = Field(default=0, ge=0)
    """0 is a GPT-2; more is a T5 with that many layers in its encoder and `layers` in its decoder."""
    heads: int = Field(default=4, ge=1)
    width: int = Field(default=256, ge=1)
    context: int = Field(default=128, ge=2)
    """Tokens that a GPT-2 can hold; a T5 has no such limit."""
    seed: int = 0

    @model_validator(mode="after")
    def _divides(self) -> ScratchConfig:
        if self.width % self.heads:
            raise ValueError(f"'width' {self.width} must be a multiple of 'heads' {self.heads}")
        return self


def build_scratch(config: ScratchConfig, texts: list[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A model of the given sizes and its tokenizer, the same for the same seed and texts."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        texts, vocab_size=config.vocabulary, special_tokens=[END_OF_TEXT], show_progress=False
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=config.context,
    )
    return architecture(config, len(tokenizer), trained.token_to_id(END_OF_TEXT)), tokenizer


def architecture(config: ScratchConfig, vocabulary: int, end_id: int) -> PreTrainedModel:
    """A model of the given sizes with its first weights."""
    with seeding.seeded(config.seed):
        return (_t5 if config.encoder_layers else _gpt2)(config, vocabulary, end_id)


def _gpt2(config: ScratchConfig, vocabulary: int, end_id: int) -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary,
            n_layer=config.layers,
            n_head=config.heads,
            n_embd=config.width,
            n_positions=config.context,
            bos_token_id=end_id,
            eos_token_id=end_id,
            pad_token_id=end_id,
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
        )
    )


def _t5(config: ScratchConfig, vocabulary: int, end_id: int) -> PreTrainedModel:
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=vocabulary,
            num_layers=config.encoder_layers,
            num_decoder_layers=config.layers,
            num_heads=config.heads,
            d_model=config.width,
            d_kv=config.width // config.heads,
            d_ff=4 * config.width,
            eos_token_id=end_id,
            pad_token_id=end_id,
            dropout_rate=0.0,
        )
    )
    model.generation_config.decoder_start_token_id = end_id
    return model
