"""A reward of several terms, and what each of them says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rlgf.rewards.base import Reward, checked_rewards


@dataclass(frozen=True)
class Term:
    """One addend of a reward."""

    reward: Reward
    weight: float = 1.0


class Composed:
    """The weighted sum ``R = sum_k weight_k R_k``, a reward itself."""

    def __init__(self, terms: Mapping[str, Term]) -> None:
        self.terms = terms

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        """One number a completion; see `Reward`."""
        references = columns.pop("references", None)
        total: list[float] = self.total(self.by_term(prompts, completions, columns, references)).tolist()
        return total

    def by_term(
        self,
        prompts: Sequence[str],
        completions: Sequence[str],
        columns: Mapping[str, list[Any]],
        references: Sequence[Sequence[str]] | None,
    ) -> dict[str, Float[Tensor, "B"]]:
        """What each term says, without its weight.

        Raises:
            UserError: see `checked_rewards`.
        """
        return {
            name: checked_rewards(term.reward, prompts, completions, columns, references)
            for name, term in self.terms.items()
        }

    def total(self, values: Mapping[str, Float[Tensor, "B"]]) -> Float[Tensor, "B"]:
        """The weighted sum of the terms' values."""
        return torch.stack([term.weight * values[name] for name, term in self.terms.items()]).sum(dim=0)


class Scores(NamedTuple):
    """What was said of B texts."""

    total: Float[Tensor, "B"]
    terms: dict[str, Float[Tensor, "B"]]
    """What each term of a composed reward said, without its weight."""


def score(
    reward: Reward,
    prompts: Sequence[str],
    completions: Sequence[str],
    columns: Mapping[str, list[Any]],
    references: Sequence[Sequence[str]],
) -> Scores:
    """What a reward says of texts, and what each of its terms says.

    Raises:
        UserError: see `checked_rewards`.
    """
    if isinstance(reward, Composed):
        values = reward.by_term(prompts, completions, columns, references)
        return Scores(reward.total(values), values)
    return Scores(checked_rewards(reward, prompts, completions, columns, references), {})
