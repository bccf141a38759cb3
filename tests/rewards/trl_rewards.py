"""Rewards as TRL's users write them, and what they are given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from rlgf.rewards import RewardInput, checked_rewards

PROMPTS, TEXTS = ["Is it good?", "And this?"], ["a good one", "a bad"]
GIVEN = RewardInput(
    PROMPTS,
    TEXTS,
    {"solution": ["one", "two"], "answer": ["x", None]},
    [("r",), ()],
    prompt_ids=[[1], [2]],
    completion_ids=[[5, 6, 7], [8]],
    finished=[True, False],
)


def said(reward: Callable[..., Any], given: RewardInput = GIVEN) -> list[float]:
    found: list[float] = checked_rewards(reward, given).tolist()
    return found


def reward_len(completions, **kwargs):
    return [float(len(completion)) for completion in completions]


async def asynchronous(completions, **kwargs):
    await asyncio.sleep(0)
    return reward_len(completions)


LENGTHS = [float(len(text)) for text in TEXTS]
