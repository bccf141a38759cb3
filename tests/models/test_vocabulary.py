"""Only tokens that the tokenizer has are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from architectures import small_tokenizer
from conftest import sharpen
from rlgf.models.generate import sample_continuations
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig, load_language_model
from rlgf.models.sampling import Sampling

GPT2: dict[str, Any] = {"vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}


def saved(model: PreTrainedModel, folder: Path) -> Path:
    sharpen(model).save_pretrained(folder)
    small_tokenizer().save_pretrained(folder)
    return folder


def loaded(folder: Path) -> LanguageModel:
    return load_language_model(ModelConfig(model=str(folder)))


def test_an_id_without_a_token_is_never_written(tmp_path: Path) -> None:
    """Neither one after the tokenizer's last, nor one between, nor one that the model's files forbid."""
    model = GPT2LMHeadModel(GPT2Config(**GPT2))
    model.generation_config.bad_words_ids = [[5], [6, 7]]
    policy = loaded(saved(model, tmp_path))
    uniforms = torch.linspace(0, 0.999, 200)[:, None]
    written = sample_continuations(
        policy.model,
        [torch.tensor([3])] * 200,
        torch.ones(200, dtype=torch.long),
        uniforms,
        Sampling(temperature=100),
        (),
    )
    found = {int(one.token_ids[0]) for one in written}
    assert found == set(policy.tokenizer.get_vocab().values()) - {5}
