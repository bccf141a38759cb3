"""What does not run where processes share the weights of a run's models."""

from __future__ import annotations

from typing import Any

import pytest

from rlgf import checks
from rlgf.config import load_config

RECIPE = {"task": "imdb", "policy": {"model": "gpt2"}, "reward": "sentiment", "algorithm": "ppo"}


def sentences(changes: dict[str, Any]) -> list[str]:
    return list(checks.broken_by_shards(load_config(RECIPE, changes)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"policy": {"quantization": "4bit", "lora": {}, "critic": "head"}},
            "'policy.quantization' does not go",
        ),
        ({"policy": {"lora": {}, "critic": "separate"}}, "set 'policy.critic: head'"),
        (
            {
                "policy": {"lora": {}},
                "reward": "discriminator",
                "algorithm": "gad",
                "guide": {"model": "gpt2"},
            },
            "the reward 'discriminator', an adapter of its own, does not run",
        ),
        ({"guide": "self", "algorithm": "ppo++"}, "the guide 'self' gives probabilities and writes no texts"),
        ({"guide": {"self": "average"}, "algorithm": "opsd"}, "the guide 'self' is the policy's start"),
        ({"guide": {"self": "live"}, "algorithm": "sdft"}, "the guide 'self' is the policy's start"),
        ({"algorithm": "a-star-po"}, "processes meet new prompts at different times"),
    ],
)
def test_each_is_a_sentence(changes: dict[str, Any], message: str) -> None:
    (said,) = sentences(changes)
    assert message in said


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"policy": {"lora": {}, "critic": "head"}},
        {"guide": "self", "algorithm": "opsd"},
        {"reward": "discriminator", "algorithm": "gail"},
    ],
)
def test_what_runs_is_not_refused(changes: dict[str, Any]) -> None:
    assert sentences(changes) == []
