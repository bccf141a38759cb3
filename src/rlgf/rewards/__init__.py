"""Rewards: functions over finished texts."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from rlgf.errors import UserError, resolve
from rlgf.rewards.base import Reward, checked_rewards
from rlgf.rewards.judge import Judge
from rlgf.rewards.sentiment import Sentiment
from rlgf.tasks.base import build_from

REWARDS: Mapping[str, Callable[..., Any]] = {"sentiment": Sentiment, "judge": Judge}
"""The rewards by name. The judge is for evaluation: a policy trained on it has no held-out judge left."""


def build_reward(name: str, options: Mapping[str, Any]) -> Reward:
    """The reward of that name: a class is called with a recipe's options, a function is used as it is.

    Args:
        name: a key of ``REWARDS``, or ``module:attribute`` or ``file.py:attribute`` of your own.

    Raises:
        UserError: there is no such reward, or an option is not known, is missing or does not fit.
    """
    reward = resolve(name, REWARDS, "reward")
    if inspect.isclass(reward):
        reward = build_from(reward, options, f"reward '{name}'")
    elif options:
        raise UserError(
            f"reward '{name}' is a function, so it takes no options (given: {', '.join(options)}): "
            "make it a class with __init__ and __call__."
        )
    if not callable(reward):
        raise UserError(f"reward '{name}' cannot be called: it must be (prompts, completions, **columns).")
    return reward  # type: ignore[no-any-return]  # a name from a recipe has no static type


__all__ = ["REWARDS", "Judge", "Reward", "Sentiment", "build_reward", "checked_rewards"]
