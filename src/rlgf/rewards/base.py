"""What a reward is: a function from prompts and completions to numbers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from rlgf.errors import UserError
from rlgf.models.loading import LanguageModel
from rlgf.rollout.collector import RolloutConfig
from rlgf.types import Rollout


@runtime_checkable
class Reward(Protocol):
    """Scores finished texts: one number a completion, higher is better.

    The samples' further columns come as keyword arguments, a list with one value a completion, so
    reward functions written for TRL work as they are. A reward that takes ``references`` (by that name,
    or among ``**columns``) gets a tuple of reference texts a completion.
    """

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]: ...


@runtime_checkable
class StatefulReward(Reward, Protocol):
    """A reward that changes over a run; its state goes into every checkpoint.

    A state holds tensors, numbers and texts, in dictionaries and lists: `torch.load` reads it with
    ``weights_only``.
    """

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any], /) -> Any: ...


@runtime_checkable
class LearnedReward(StatefulReward, Protocol):
    """A reward that learns beside the policy."""

    def update(self, rollout: Rollout, /) -> Mapping[str, float]:
        """Learn from the episodes of an update, which have been paid and learned from by then.

        Of several processes each is given the episodes of all, and must learn the same.

        Returns:
            Metrics to log.
        """
        ...


@runtime_checkable
class PolicyReadingReward(Reward, Protocol):
    """A reward that is made from the policy that it is to pay."""

    def attach(self, policy: LanguageModel, config: RolloutConfig, seed: int, /) -> None:
        """Called once, when the policy is loaded, its adapter included, and before anything is scored.

        It must copy the weights that it keeps, or inject an adapter of its own into ``policy.adapters``.
        """
        ...


def checked_rewards(
    reward: Reward,
    prompts: Sequence[str],
    completions: Sequence[str],
    columns: Mapping[str, list[Any]],
    references: Sequence[Sequence[str]] | None = None,
) -> Float[Tensor, "B"]:
    """Call a reward and make sure of its answer: float32, one value a completion.

    Args:
        references: the reference texts of each completion's sample, for a reward that takes them; a
            column of that name goes before them.

    Raises:
        UserError: the reward does not take these columns, or it returned another number of values, or
            one that is no finite number; says which and what would be right.
    """
    name = f"the reward '{getattr(reward, '__name__', type(reward).__name__)}'"
    if references is not None and takes(reward, "references"):
        columns = {"references": list(references), **columns}
    try:
        call = inspect.signature(reward).bind(list(prompts), list(completions), **columns)
    except TypeError as error:
        given = ", ".join(columns) or "none"
        raise UserError(
            f"{name} cannot be called as (prompts, completions, **columns): {error} (columns: {given})."
        ) from error
    answer: Any = reward(*call.args, **call.kwargs)
    # Tensors and arrays become plain numbers.
    values = answer.tolist() if hasattr(answer, "tolist") else answer
    if not isinstance(values, Sequence) or len(values) != len(completions):
        returned = f"{len(values)} values" if isinstance(values, Sequence) else repr(values)
        raise UserError(
            f"{name} returned {returned} for {len(completions)} completions: "
            "it must return a list with one number a completion."
        )
    for i, value in enumerate(values):
        if not isinstance(value, Real) or not math.isfinite(value) or abs(float(value)) > _LARGEST:
            raise UserError(
                f"{name} returned {value!r} for completion {i}: it must return finite float32 numbers."
            )
    return torch.tensor([float(value) for value in values], dtype=torch.float32)


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function takes an argument of that name, or any keyword."""
    parameters = inspect.signature(function).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


_LARGEST = torch.finfo(torch.float32).max
