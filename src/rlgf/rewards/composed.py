"""A reward of several terms, and what each of them says."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rlgf.errors import UserError
from rlgf.models.language_model import LanguageModel
from rlgf.rewards.base import (
    Logged,
    PolicyReadingReward,
    Reward,
    RewardInput,
    all_checked_rewards,
    checked_rewards,
    keeps_state,
    learned,
)
from rlgf.rollout.config import RolloutConfig
from rlgf.types import Rollout


@dataclass(frozen=True)
class Term:
    """One addend of a reward."""

    reward: Reward
    weight: float = 1.0


class Composed:
    """The weighted sum ``R = sum_k weight_k R_k`` over the terms that apply to a text, a reward itself."""

    def __init__(self, terms: Mapping[str, Term]) -> None:
        self.terms = terms

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **given: Any
    ) -> list[float | None]:
        """One number per completion, None where no term applies; see `Reward`."""
        total = self.total(self.by_term(RewardInput(prompts, completions, given), Logged()))
        return [None if value != value else value for value in total.tolist()]

    def by_term(self, given: RewardInput, logged: Logged) -> dict[str, Float[Tensor, "B"]]:
        """What each term says, without its weight; NaN where it does not apply.

        Raises:
            UserError: see `checked_rewards`.
        """
        return all_checked_rewards(self.rewards, given, logged)

    @property
    def rewards(self) -> dict[str, Reward]:
        return {name: term.reward for name, term in self.terms.items()}

    def state_dict(self) -> dict[str, Any]:
        """The states of those terms that have one."""
        return {name: reward.state_dict() for name, reward in self.rewards.items() if keeps_state(reward)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, reward in self.rewards.items():
            if keeps_state(reward):
                reward.load_state_dict(state[name])

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Let the terms that learn do so; their metrics are called ``<term>/<metric>``."""
        return {
            f"{name}/{metric}": value
            for name, reward in self.rewards.items()
            for metric, value in learned(reward, rollout).items()
        }

    def attach(self, policy: LanguageModel, config: RolloutConfig, seed: int) -> None:
        for reward in self.rewards.values():
            if isinstance(reward, PolicyReadingReward):
                reward.attach(policy, config, seed)

    def total(self, values: Mapping[str, Float[Tensor, "B"]]) -> Float[Tensor, "B"]:
        """The weighted sum of those terms that apply to a text; NaN where none does.

        Raises:
            UserError: it is too large for a number.
        """
        weighted = torch.stack([term.weight * values[name] for name, term in self.terms.items()])
        nothing = torch.stack([values[name].isnan() for name in self.terms]).all(dim=0)
        total = weighted.nansum(dim=0)
        if not total.isfinite().all():
            name = max(
                self.terms,
                key=lambda name: float((self.terms[name].weight * values[name]).abs().nan_to_num(0.0).max()),
            )
            raise UserError(
                f"the reward's terms add up to {total[~total.isfinite()][0].item()}, which is no finite number: lower the weight "
                f"of '{name}' (it is {self.terms[name].weight:g}) or what that term returns."
            )
        return total.masked_fill(nothing, math.nan)


def single_rewards(reward: Reward) -> list[Reward]:
    """The reward itself, or the terms of a composed one."""
    return list(reward.rewards.values()) if isinstance(reward, Composed) else [reward]


def reads_policy(reward: Reward | None) -> bool:
    """Whether the reward or a term of it is made from the policy."""
    return reward is not None and any(isinstance(one, PolicyReadingReward) for one in single_rewards(reward))


class Scores(NamedTuple):
    """The scores of B texts."""

    total: Float[Tensor, "B"]
    """0 where no term applies."""
    terms: dict[str, Float[Tensor, "B"]]
    """What each term of a composed reward said, without its weight; NaN where it does not apply."""
    logged: Logged


def score(reward: Reward, given: RewardInput) -> Scores:
    """What a reward says of texts, and what each of its terms says.

    A text that no term applies to is paid 0, and a warning says so.

    Raises:
        UserError: see `checked_rewards`.
    """
    logged = Logged()
    terms = reward.by_term(given, logged) if isinstance(reward, Composed) else {}
    total = reward.total(terms) if isinstance(reward, Composed) else checked_rewards(reward, given, logged)
    if total.isnan().any():
        warnings.warn(_UNPAID, stacklevel=2)
    return Scores(total.nan_to_num(0.0), terms, logged)


_UNPAID = (
    "the reward said None of a text, and so did each of its terms where it has several: such a text is paid 0. Let "
    "one term apply to every row of the data."
)
