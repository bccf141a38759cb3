"""Ways to estimate advantages, which a row of the catalog names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlgf.objectives import advantages


@dataclass(frozen=True)
class Signals:
    """What an advantage estimator may read."""

    token_rewards: Float[Tensor, "B T"]
    """With the KL penalty, where it belongs in the rewards."""
    rewards: Float[Tensor, "B"]
    """The pay for each episode, without the penalty."""
    values: Float[Tensor, "B T"] | None
    """The critic's; None where the row has none."""
    mask: Bool[Tensor, "B T"]
    group: Int[Tensor, "B"]
    gamma: float
    gae_lambda: float | Literal["adaptive"]
    logprobs: Float[Tensor, "B T"] | None = None
    """Of each of the policy's tokens, under the distribution that it was drawn from; None where it is not known."""
    chunks: Int[Tensor, "B T"] | None = None
    """Which chunk of its text each token belongs to, and 0 for none; None where no guide has scored the texts."""
    guide_logprobs: Float[Tensor, "B T"] | None = None
    """What the guide says of the chunk that each token belongs to."""
    start_values: Float[Tensor, "B"] | None = None
    """Of each episode's prompt, see `Algorithm.start_value`."""
    branch_values: Float[Tensor, "B T"] | None = None
    """The mean pay of texts that branch off before a token; NaN where none do."""


@dataclass(frozen=True)
class Estimates:
    """What an estimator says of each token."""

    advantages: Float[Tensor, "B T"]
    returns: Float[Tensor, "B T"] | None = None
    """What a critic is fitted to, where there is one."""
    gae_lambda: float | None = None
    """The lambda that was taken, where there is one."""


@dataclass(frozen=True)
class Pairs:
    """Which episodes an estimator sets against each other."""

    rows: Int[Tensor, "N 2"]
    """The better episode of each pair, then the worse."""
    difference: Float[Tensor, "N"]
    """How much better it is."""


@dataclass(frozen=True)
class Estimator:
    """A way to estimate advantages, or to pick pairs."""

    estimate: Callable[[Signals], Estimates | Pairs]
    grouped: bool = False
    """Whether it compares the members of a group, which then needs two or more."""
    paired: bool = False
    """Whether it picks `Pairs`."""
    needs_reward: bool = True
    returns: bool = True
    """Whether it says what a critic is fitted to."""
    reads_kl: bool = True
    """Whether the KL penalty goes into the token rewards that it reads, unless a term of the row is it.
    An estimator that divides by the spread of a group's rewards would divide the penalty too."""
    reads_guide: bool = False
    """Whether it reads how probable the guide finds the texts, see `rlgf.guides.TextScoringGuide`."""
    reads_start: bool = False
    """Whether it reads the value of the prompt, see `Algorithm.start_value`."""
    weighs: bool = True
    """Whether losses weigh tokens by it, so that what others sampled for the policy is to be weighted; a number that is
    regressed is not."""
    reads_branches: bool = False
    """Whether it reads what texts earn that branch off from an episode, see `Branches`."""


def _gae(signals: Signals) -> Estimates:
    assert signals.values is not None, "a row with this estimator has a critic"
    seen = signals.token_rewards, signals.values, signals.mask, signals.gamma
    chosen = signals.gae_lambda
    taken = advantages.adaptive_lambda(*seen) if chosen == "adaptive" else chosen
    return Estimates(*advantages.gae(*seen, taken), taken)


def _guide_log_ratio(signals: Signals) -> Estimates:
    guide, policy, chunks = signals.guide_logprobs, signals.logprobs, signals.chunks
    assert guide is not None, "asked for where it is read"
    assert policy is not None, "told with what it drew"
    assert chunks is not None, "told with what the guide says"
    return Estimates(advantages.guide_log_ratio(guide, policy, chunks))


def _over_start(signals: Signals) -> Estimates:
    assert signals.start_values is not None, "estimated where it is read"
    advantage = (signals.rewards - signals.start_values).to(signals.rewards.dtype)
    return Estimates(advantage[:, None] * signals.mask)


def _branched(signals: Signals) -> Estimates:
    assert signals.branch_values is not None, "written where they are read"
    return Estimates(advantages.branched(signals.rewards, signals.branch_values, signals.mask))


def _within_group(score: Callable[[Tensor, Tensor], Tensor], *, reads_kl: bool) -> Estimator:
    """An estimator that gives every token of an episode its advantage over its group."""

    def estimate(signals: Signals) -> Estimates:
        advantage = score(signals.token_rewards.sum(dim=1), signals.group)
        return Estimates(advantage[:, None] * signals.mask)

    return Estimator(estimate, grouped=True, returns=False, reads_kl=reads_kl)


def _pairing(
    rank: Callable[[Signals], Tensor], *, scaled: bool, needs_reward: bool = True, reads_kl: bool = False
) -> Estimator:
    """An estimator that pairs the best and the worst of each group; the difference is 1, or that of their scores."""

    def estimate(signals: Signals) -> Pairs:
        scores = rank(signals)
        rows = advantages.best_and_worst(scores, signals.group)
        better, worse = rows.unbind(dim=1)
        return Pairs(rows, scores[better] - scores[worse] if scaled else torch.ones(len(rows)))

    return Estimator(estimate, grouped=True, paired=True, needs_reward=needs_reward, reads_kl=reads_kl)


ESTIMATORS: Mapping[str, Estimator] = {
    "gae": Estimator(_gae),
    "group_relative": _within_group(advantages.group_relative, reads_kl=False),
    "group_centred": _within_group(partial(advantages.group_relative, scale=False), reads_kl=True),
    "leave_one_out": _within_group(advantages.leave_one_out, reads_kl=True),
    "preference": _pairing(lambda signals: signals.rewards, scaled=False),
    "reward_difference": _pairing(
        lambda signals: signals.token_rewards.sum(dim=1), scaled=True, reads_kl=True
    ),
    "guide_log_ratio": Estimator(
        _guide_log_ratio, needs_reward=False, returns=False, reads_kl=False, reads_guide=True
    ),
    "over_start": Estimator(_over_start, returns=False, reads_kl=False, reads_start=True, weighs=False),
    "branched": Estimator(_branched, returns=False, reads_kl=False, reads_branches=True),
    "given_order": _pairing(
        lambda signals: -torch.arange(len(signals.group), dtype=torch.float32),
        scaled=False,
        needs_reward=False,
    ),
}
