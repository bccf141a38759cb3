"""Prompts that lose their beginning are told of."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rlgf.chat import ChatTemplate
from rlgf.models.text import Codec
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from rlgf.run.trials import answered_prompts, long_prompts
from rlgf.tasks.chats import PromptedTask
from rlgf.types import Message, Sample
from toys import LetterTask, letter_gpt, letter_tokenizer, share_of_a


def told(samples: list[Sample], limit: int) -> list[str]:
    template = ChatTemplate(None, "none", "")
    return long_prompts(
        PromptedTask(LetterTask(), lambda: template), samples, Codec(letter_tokenizer("abcd")), limit
    )


def test_the_longest_prompt_is_told() -> None:
    samples = [Sample("a" * count) for count in (4, 5, 9, 1)]
    assert told(samples, 9) == []
    assert told([Sample("a" * 9, cue="a")], 4) == [], "it is cut where its task wants it to be"
    said = (
        "are over 4 tokens and lose their beginning (the longest has 9): raise 'rollout.max_prompt_tokens'."
    )
    assert told(samples, 4) == [f"2 of the 4 prompts of 'train' {said}"]
    assert told(samples * 100, 4) == [f"128 of the first 256 prompts of 'train' {said}"]


class Opened:
    """Texts to go on with."""

    continues_texts = True

    def load(self, split: str) -> list[Sample]:
        return [Sample("abcabc"), Sample("a")]


@pytest.mark.parametrize("task", [None, Opened()])
def test_a_run_says_at_its_start_that_prompts_are_cut(task: Opened | None, tmp_path: Path) -> None:
    heard = io.StringIO()
    given: dict[str, Any] = {"task": task} if task else {"train": [{"prompt": "abcabc"}, {"prompt": "a"}]}
    Trainer(
        {
            "algorithm": "rloo",
            "output": str(tmp_path),
            "rollout": {"episodes": 8, "max_prompt_tokens": 4, "max_response_tokens": 6},
            "update": {"minibatch": 4},
            "training": {"updates": 1, "trackers": []},
        },
        display=Display(Console(file=heard, width=200)),
        policy=letter_gpt(),
        reward=share_of_a,
        **given,
    ).train()
    said = "1 of the 2 prompts of 'train' are over 4 tokens and lose their beginning"
    assert (said in heard.getvalue()) == (task is None)


def test_conversations_that_are_taken_for_prompts_are_told() -> None:
    def chat(*told: str, references: tuple[str, ...] = ()) -> Sample:
        roles = ("user", "assistant")
        return Sample("", references, messages=tuple(map(Message, roles, told)))

    (said,) = answered_prompts([chat("a?", "yes"), chat("b?", "no")])
    assert "name their column as 'reference_field'" in said
    assert answered_prompts([chat("a?", "<think>"), chat("b?", "<think>")]) == [], "a beginning for all"
    assert answered_prompts([chat("a?"), chat("b?")]) == answered_prompts([Sample("a"), Sample("b")]) == []
    assert answered_prompts([chat("a?", "y", references=("yes",)), chat("b?", "n", references=("no",))]) == []
