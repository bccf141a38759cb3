"""What a reward is: a function from prompts and completions to numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from rlgf.errors import UserError


@runtime_checkable
class Reward(Protocol):
    """Scores finished texts: one number a completion.

    The samples' further columns come as keyword arguments, a list with one value a completion, so
    reward functions written for TRL work as they are.
    """

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]: ...


def checked_rewards(
    reward: Reward, prompts: Sequence[str], completions: Sequence[str], columns: Mapping[str, list[Any]]
) -> Float[Tensor, "B"]:
    """Call a reward and make sure of its answer.

    Raises:
        UserError: it returned another number of values, or one that is no finite number.
    """
    name = getattr(reward, "__name__", type(reward).__name__)
    values = list(reward(list(prompts), list(completions), **columns))
    if len(values) != len(completions):
        raise UserError(
            f"the reward '{name}' returned {len(values)} values for {len(completions)} completions: "
            "it must return one a completion."
        )
    for i, value in enumerate(values):
        try:
            finite = math.isfinite(value)
        except TypeError:
            finite = False
        if not finite:
            raise UserError(
                f"the reward '{name}' returned {value!r} for completion {i}: it must return finite numbers."
            )
    return torch.tensor([float(value) for value in values])
