"""Which episodes are learned from together: one by one, or as the pairs that an estimator picked."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlgf.algorithms import Algorithm, PairTerms
from rlgf.types import Experience


def learning_units(experience: Experience, row: Algorithm) -> Int[Tensor, "N K"]:
    """Rows of the experience that must stay in one micro-batch: single ones, or pairs with the better first.

    Episodes of a row of pairs that are in none, such as those of a group that was rewarded alike, are
    left out.
    """
    if not row.paired:
        return torch.arange(len(experience))[:, None]
    # An advantage is the same at every token, and every response has a first one.
    score, group = experience.advantages[:, 0], experience.rollout.group
    better, worse = ((sign * score > 0).nonzero().squeeze(1) for sign in (1, -1))
    order = [rows[group[rows].argsort()] for rows in (better, worse)]
    return torch.stack(order, dim=1)


def pair_terms(
    micro: Experience, logprobs: Float[Tensor, "B T"], beta: float, normalizer: float
) -> PairTerms:
    """What a pair loss reads of a micro-batch that holds pair behind pair."""
    length, device = logprobs.shape[1], logprobs.device
    mask = micro.policy_mask[:, :length].to(device)

    def log_ratios(base: Float[Tensor, "B L"]) -> Float[Tensor, "N 2"]:
        return torch.where(mask, logprobs - base[:, :length].to(device), 0.0).sum(dim=1).view(-1, 2)

    return PairTerms(
        log_ratios(micro.reference_logprobs),
        log_ratios(micro.old_logprobs),
        micro.advantages[::2, 0].to(device),
        beta,
        normalizer,
    )
