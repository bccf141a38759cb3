"""What the episodes of an update looked like, in numbers."""

from __future__ import annotations

import torch

from rlgf.algorithms import Algorithm
from rlgf.losses import kl_estimate
from rlgf.types import Author, Experience


def mean_kl(experience: Experience) -> float:
    """KL(policy || reference) in nats a token, over the policy's tokens; never negative."""
    rollout = experience.rollout
    mask = rollout.written_by(Author.POLICY)
    estimate = kl_estimate(rollout.sampled_logprobs, experience.reference_logprobs)
    return float(torch.where(mask, estimate, 0.0).sum() / mask.sum().clamp(min=1))


def describe(experience: Experience, row: Algorithm) -> dict[str, float]:
    """What the episodes of an update looked like."""
    rollout = experience.rollout
    found = {"response_tokens": float(rollout.lengths.float().mean())}
    if row.needs_reward:
        by_policy = rollout.written_by(Author.POLICY)
        found |= {
            "reward": float(experience.rewards.mean()),
            "kl": mean_kl(experience),
            "entropy": float(-rollout.sampled_logprobs.sum() / by_policy.sum().clamp(min=1)),
            "learned_tokens": float(experience.policy_mask.sum()),
            "guide_altered": float(rollout.altered.sum()),
        }
        for name, values in experience.logged.items():
            found.setdefault(name, float(values.nanmean()))
        for term, values in experience.terms.items():
            # Where a term applies to no text of the update there is nothing to say.
            if not values.isnan().all():
                found[f"reward/{term}"] = float(values.nanmean())
        for guide in sorted({name for name in rollout.guides if name is not None}):
            wrote = torch.tensor([name == guide for name in rollout.guides])
            found[f"reward/{guide}"] = float(experience.rewards[wrote].mean())
    return found
