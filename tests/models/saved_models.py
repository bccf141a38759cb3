"""Tiny models in folders, as other people's are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from architectures import small_tokenizer
from conftest import sharpen
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig, load_language_model

GPT2: dict[str, Any] = {"vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}


def saved(model: PreTrainedModel, folder: Path) -> Path:
    sharpen(model).save_pretrained(folder)
    small_tokenizer().save_pretrained(folder)
    return folder


def loaded(folder: Path) -> LanguageModel:
    return load_language_model(ModelConfig(model=str(folder)))
