"""Prompts that a tokenizer has no tokens for are told of."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from rlgf.chat import ChatTemplate
from rlgf.models.text import Codec
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from rlgf.run.trials import unread_prompts
from rlgf.tasks.chats import Prompted
from rlgf.types import Sample
from toys import letter_gpt, share_of_a


def prompted(*texts: str) -> Prompted:
    return Prompted([Sample(text) for text in texts], lambda: ChatTemplate(None, "", ""), "train")


def codec(unknown: str | None) -> Codec:
    """One that has the letters a and b, and drops others or reads them as unknown."""
    vocabulary = {letter: i for i, letter in enumerate([*([unknown] if unknown else []), "a", "b"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token=unknown))
    return Codec(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=unknown))


@pytest.mark.parametrize(("unknown", "count"), [(None, 1), ("<unk>", 2)])
def test_prompts_that_are_not_read_are_told(unknown: str | None, count: int) -> None:
    assert unread_prompts(prompted("ab", "", " ", *([unknown] if unknown else [])), codec(unknown)) == []
    (said,) = unread_prompts(prompted("ab", "xyz", *(["abx"] if unknown else [])), codec(unknown))
    assert said.startswith(f"{count} of the {count + 1} prompts of 'train' hold characters")
    assert "(the first: sample 1 of the task's split 'train')" in said
    (said,) = unread_prompts(prompted(*["x"] * 300), codec(unknown))
    assert said.startswith("256 of the first 256 prompts")


def test_a_run_says_at_its_start_that_prompts_are_not_read(tmp_path: Path) -> None:
    heard, policy = io.StringIO(), letter_gpt()
    policy.tokenizer.unk_token = "<end>"
    Trainer(
        {
            "algorithm": "rloo",
            "output": str(tmp_path),
            "rollout": {"episodes": 8, "max_prompt_tokens": 4, "max_response_tokens": 6},
            "update": {"minibatch": 4},
            "training": {"updates": 1, "trackers": []},
        },
        display=Display(Console(file=heard, width=500)),
        policy=policy,
        reward=share_of_a,
        train=[{"prompt": "abc"}, {"prompt": "?!"}],
    ).train()
    assert "1 of the 2 prompts of 'train' hold characters" in heard.getvalue()
