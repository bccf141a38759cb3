"""Only tokens that the tokenizer has are written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from saved_models import GPT2, loaded, saved
from transformers import GPT2Config, GPT2LMHeadModel

from rlgf.errors import UserError
from rlgf.models.generate import sample_continuations
from rlgf.models.sampling import Sampling
from rlgf.models.vocabulary import read_logits
from toys import letter_tokenizer


def with_added(folder: Path, *, special: bool) -> Path:
    """A GPT-2 whose tokenizer has one token more than the model reads, as Gemma 3 without images has."""
    tokenizer = letter_tokenizer("abcd")
    saved(GPT2LMHeadModel(GPT2Config(**{**GPT2, "vocab_size": len(tokenizer)})), folder)
    tokenizer.add_tokens("<image>", special_tokens=special)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_special_token_beyond_the_embeddings_is_neither_written_nor_read(tmp_path: Path) -> None:
    policy = loaded(with_added(tmp_path, special=True))
    rows = len(policy.model.get_input_embeddings().weight)
    assert policy.tokenizer.convert_tokens_to_ids("<image>") >= rows
    scored = policy.model(input_ids=torch.tensor([policy.encode_prompt("ab", 8)])).logits
    assert read_logits(policy.model, scored).shape[-1] == rows
    with pytest.raises(
        UserError, match="a prompt holds '<image>', a token that the model has no embedding for"
    ):
        policy.encode_prompt("a<image>b", 8)


def test_a_plain_token_beyond_the_embeddings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the tokenizer is not the model's"):
        loaded(with_added(tmp_path, special=False))


def test_an_id_without_a_token_is_never_written(tmp_path: Path) -> None:
    """Neither one after the tokenizer's last, nor one between, nor one that the model's files forbid."""
    model = GPT2LMHeadModel(GPT2Config(**GPT2))
    model.generation_config.bad_words_ids = [[5], [6, 7]]
    model.generation_config.suppress_tokens = [-1]
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
