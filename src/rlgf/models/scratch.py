"""A small GPT from nothing: random weights and a byte-level BPE tokenizer fitted to the task's text."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"


class ScratchConfig(BaseModel):
    """Sizes of a GPT-2 that starts from random weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocabulary: int = Field(default=4096, ge=258)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    width: int = Field(default=256, ge=1)
    context: int = Field(default=128, ge=2)
    seed: int = 0

    @model_validator(mode="after")
    def _divides(self) -> ScratchConfig:
        if self.width % self.heads:
            raise ValueError(f"'width' {self.width} must be a multiple of 'heads' {self.heads}")
        return self


def build_scratch(config: ScratchConfig, texts: list[str]) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """A GPT-2 of the given sizes and its tokenizer, the same for the same seed and texts."""
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
    end_id = trained.token_to_id(END_OF_TEXT)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(tokenizer),
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
    return model, tokenizer
