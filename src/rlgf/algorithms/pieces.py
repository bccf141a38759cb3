"""What a row of the table names: ways to estimate advantages, and policy losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlgf import advantages, losses


@dataclass(frozen=True)
class Signals:
    """What an advantage estimator may read."""

    token_rewards: Float[Tensor, "B T"]
    """With the KL penalty, where it belongs in the rewards."""
    rewards: Float[Tensor, "B"]
    """What is paid for each episode, without the penalty."""
    values: Float[Tensor, "B T"]
    mask: Bool[Tensor, "B T"]
    group: Int[Tensor, "B"]
    gamma: float
    gae_lambda: float


Estimates = tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]
"""Advantages (B, T) and value targets (B, T)."""


@dataclass(frozen=True)
class Estimator:
    """A way to estimate advantages."""

    estimate: Callable[[Signals], Estimates]
    grouped: bool = False
    """Whether it compares the members of a group, which then needs two or more."""
    paired: bool = False
    """Whether it picks a pair of each group: above 0 for the better text, below for the worse, else 0."""
    needs_reward: bool = True
    kl_penalty: Literal["reward", "loss"] | None = "reward"
    """Where the KL penalty goes: into the reward of each of the policy's tokens, as a term into the loss, where this
    estimator would divide it by the spread of a group's rewards, or nowhere."""


def _gae(signals: Signals) -> Estimates:
    return advantages.gae(
        signals.token_rewards, signals.values, signals.mask, signals.gamma, signals.gae_lambda
    )


def _within_group(
    score: Callable[[Tensor, Tensor], Tensor], kl_penalty: Literal["reward", "loss"]
) -> Estimator:
    """An estimator that gives every token of an episode its advantage over its group."""

    def estimate(signals: Signals) -> Estimates:
        advantage = score(signals.token_rewards.sum(dim=1), signals.group)
        return advantage[:, None] * signals.mask, torch.zeros_like(signals.values)

    return Estimator(estimate, grouped=True, kl_penalty=kl_penalty)


def _pairing(
    rank: Callable[[Signals], Tensor],
    *,
    scaled: bool,
    needs_reward: bool = True,
    kl_penalty: Literal["reward", "loss"] | None = None,
) -> Estimator:
    """An estimator that pairs the best and the worst of each group: 1 and -1, or scaled by their distance."""

    def estimate(signals: Signals) -> Estimates:
        scores = rank(signals)
        better, worse = advantages.best_and_worst(scores, signals.group).unbind(dim=1)
        distance = scores[better] - scores[worse] if scaled else torch.ones(len(better))
        advantage = torch.zeros_like(scores)
        advantage[better], advantage[worse] = distance, -distance
        return advantage[:, None] * signals.mask, torch.zeros_like(signals.values)

    return Estimator(estimate, grouped=True, paired=True, needs_reward=needs_reward, kl_penalty=kl_penalty)


ESTIMATORS: Mapping[str, Estimator] = {
    "gae": Estimator(_gae),
    "group_relative": _within_group(advantages.group_relative, kl_penalty="loss"),
    "leave_one_out": _within_group(advantages.leave_one_out, kl_penalty="reward"),
    "preference": _pairing(lambda signals: signals.rewards, scaled=False),
    "reward_difference": _pairing(
        lambda signals: signals.token_rewards.sum(dim=1), scaled=True, kl_penalty="reward"
    ),
    "given_order": _pairing(
        lambda signals: -torch.arange(len(signals.group), dtype=torch.float32),
        scaled=False,
        needs_reward=False,
    ),
}


@dataclass(frozen=True)
class PolicyTerms:
    """What a policy loss may read, for one micro-batch."""

    logprobs: Float[Tensor, "B T"]
    old_logprobs: Float[Tensor, "B T"]
    advantages: Float[Tensor, "B T"]
    mask: Bool[Tensor, "B T"]
    clip: float
    normalizer: float


PolicyLoss = Callable[[PolicyTerms], tuple[Tensor, losses.Metrics]]

POLICY_LOSSES: Mapping[str, PolicyLoss] = {
    "clipped_surrogate": lambda x: losses.clipped_surrogate(
        x.logprobs, x.old_logprobs, x.advantages, x.mask, x.clip, x.normalizer
    ),
    "nll": lambda x: losses.negative_log_likelihood(x.logprobs, x.mask, x.normalizer),
    "shaped_importance": lambda x: losses.shaped_importance(x.logprobs, x.advantages, x.mask, x.normalizer),
}


POLICY_GRADIENTS = frozenset({"clipped_surrogate", "shaped_importance"})
"""The policy losses that weigh tokens by their advantage: of the tokens of different authors they make one sum."""


@dataclass(frozen=True)
class PairTerms:
    """What a pair loss may read, for the N pairs of one micro-batch; the better text comes first."""

    to_reference: Float[Tensor, "N 2"]
    """log pi(y) / reference(y) of whole texts."""
    to_old: Float[Tensor, "N 2"]
    """log pi(y) / old(y); old is the policy before the update."""
    difference: Float[Tensor, "N"]
    """How much better the first text is, as the estimator says."""
    beta: float
    normalizer: float


@dataclass(frozen=True)
class PairLoss:
    """A policy loss over pairs of whole texts."""

    compute: Callable[[PairTerms], tuple[Tensor, losses.Metrics]]
    reads_old: bool = False
    """Whether it compares with the policy before the update, which then scores what others wrote."""


PAIR_LOSSES: Mapping[str, PairLoss] = {
    "dpo": PairLoss(lambda x: losses.dpo(x.to_reference, x.beta, x.normalizer)),
    "rebel": PairLoss(lambda x: losses.rebel(x.to_old, x.difference, x.beta, x.normalizer), reads_old=True),
}
