"""What tests of dialogues share: an environment, a collector, and who wrote which letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlgf.algorithms import Algorithm
from rlgf.environments import Environment
from rlgf.guides import Guide
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.dialogue import Dialogue
from rlgf.types import Author, Rollout, Sample

SAMPLES = [Sample("abca"[: 1 + i % 4], columns={"wanted": i}) for i in range(24)]
LENGTH = 16
TURNS = 4
# A user's message is an a, its text and the end; an answer a b, its text and the end.
CHAT = (
    "{% for m in messages %}{{ 'a' if m.role == 'user' else 'b' }}{{ m.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}b{% endif %}"
)


class Echo:
    """Says "dd" after each turn that a text ends, and ends the dialogue after one with a given letter."""

    def __init__(self, stop: str = "", last: str = "never") -> None:
        self.stop = stop
        self.last = last

    def __call__(self, turns: Sequence[str], replies: Sequence[str], **known: Any) -> str | None:
        assert len(turns) == len(replies) + 1
        assert known["prompt"] == SAMPLES[known["wanted"]].prompt
        return None if self.last in turns[-1] else "dd"


class Says:
    """Gives one answer to every turn."""

    def __init__(self, reply: str, stop: str = "") -> None:
        self.reply = reply
        self.stop = stop

    def __call__(self, turns: Sequence[str], **known: Any) -> str:
        return self.reply


def collector(
    policy: LanguageModel, environment: Environment, guide: Guide | None = None, **options: object
) -> Collector:
    config = RolloutConfig.model_validate({"max_prompt_tokens": 8, "max_response_tokens": LENGTH, **options})
    dialogue = Dialogue(environment, TURNS, policy, LENGTH)
    return Collector(policy, guide, config, seed=0, dialogue=dialogue)


def runs(rollout: Rollout, row: int) -> list[tuple[Author, str]]:
    """Who wrote which letters, one entry for each change of author."""
    found: list[tuple[Author, str]] = []
    for author, token in zip(rollout.author[row].tolist(), rollout.response_ids[row].tolist(), strict=True):
        if author != Author.NOBODY:
            letter = "abcd."[token]
            if found and found[-1][0] == author:
                found[-1] = Author(author), found[-1][1] + letter
            else:
                found.append((Author(author), letter))
    return found


def sure(row: Algorithm, **help: object) -> Algorithm:
    return row.changed(help={"probability": 1.0, **help})
