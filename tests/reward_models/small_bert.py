"""A tiny encoder with the tokenizer of MiniLM, as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import BertConfig

from tokenizer_kinds import word_pieces


def save_bert(folder: Path, kind: Any, **changes: Any) -> str:
    """Write a model of a class such as ``BertForMaskedLM``, with random weights."""
    tokenizer = word_pieces()
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    kind(BertConfig(vocab_size=len(tokenizer), **sizes, **changes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
