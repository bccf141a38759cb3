"""A reward of several terms, and what each of them says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rlgf.models.loading import LanguageModel
from rlgf.rewards.base import LearnedReward, PolicyReadingReward, Reward, StatefulReward, checked_rewards
from rlgf.rollout.collector import RolloutConfig
from rlgf.types import Rollout


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

    @property
    def rewards(self) -> dict[str, Reward]:
        return {name: term.reward for name, term in self.terms.items()}

    def state_dict(self) -> dict[str, Any]:
        """The states of those terms that have one."""
        return {
            name: reward.state_dict()
            for name, reward in self.rewards.items()
            if isinstance(reward, StatefulReward)
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, reward in self.rewards.items():
            if isinstance(reward, StatefulReward):
                reward.load_state_dict(state[name])

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Let those terms learn that do; their metrics are called ``<term>/<metric>``."""
        return {
            f"{name}/{metric}": value
            for name, reward in self.rewards.items()
            if isinstance(reward, LearnedReward)
            for metric, value in reward.update(rollout).items()
        }

    def attach(self, policy: LanguageModel, config: RolloutConfig, seed: int) -> None:
        for reward in self.rewards.values():
            if isinstance(reward, PolicyReadingReward):
                reward.attach(policy, config, seed)

    def total(self, values: Mapping[str, Float[Tensor, "B"]]) -> Float[Tensor, "B"]:
        """The weighted sum of the terms' values."""
        return torch.stack([term.weight * values[name] for name, term in self.terms.items()]).sum(dim=0)


def single_rewards(reward: Reward) -> list[Reward]:
    """The reward itself, or the terms of a composed one."""
    return list(reward.rewards.values()) if isinstance(reward, Composed) else [reward]


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
