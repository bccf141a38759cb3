"""What the episodes of an update looked like, in numbers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rlgf.algorithms import Algorithm
from rlgf.learning.inputs import read_by_any
from rlgf.objectives.losses import kl_estimate
from rlgf.rollout.rescored import gaps
from rlgf.types import Author, Experience, Scored


def mean_kl(scored: Scored) -> float:
    """KL(policy || reference) in nats per token, over the policy's tokens; never negative."""
    rollout = scored.rollout
    assert scored.reference_logprobs is not None, "scored for rows with a reward"
    mask = rollout.written_by(Author.POLICY)
    estimate = kl_estimate(rollout.sampled_logprobs, scored.reference_logprobs)
    return float(torch.where(mask, estimate, 0.0).sum() / mask.sum().clamp(min=1))


def describe(experience: Experience, row: Algorithm) -> dict[str, float]:
    """What the episodes of an update looked like."""
    scored, rollout = experience.scored, experience.rollout
    found = {
        "response_tokens": float(rollout.lengths.float().mean()),
        "kl_coefficient": experience.kl_coefficient,
    }
    if scored.rewards is not None:
        by_policy = rollout.written_by(Author.POLICY)
        read = read_by_any({n: t for n, t in row.terms.items() if not t.of_critic}, rollout, row)
        learned = read if experience.pairs is None else read[experience.pairs.flatten()]
        found |= {
            "reward": float(scored.rewards.mean()),
            "kl": mean_kl(scored),
            "entropy": float(-rollout.sampled_logprobs.sum() / by_policy.sum().clamp(min=1)),
            "learned_tokens": float(learned.sum()),
            "guide_altered": float(rollout.altered.sum()),
        }
        for name, values in scored.logged.items():
            found.setdefault(name, float(values.nanmean()))
        for term, values in scored.reward_terms.items():
            # Where a term applies to no text of the update there is nothing to say.
            if not values.isnan().all():
                found[f"reward/{term}"] = float(values.nanmean())
        for guide in sorted({name for name in rollout.guides if name is not None}):
            wrote = torch.tensor([name == guide for name in rollout.guides])
            found[f"reward/{guide}"] = float(scored.rewards[wrote].mean())
    return found | _of_engine(experience)


def _of_engine(experience: Experience) -> dict[str, float]:
    """How far an engine that sampled is from the policy, in nats per token, and what that weighs."""
    rollout = experience.rollout
    if rollout.engine_logprobs is None:
        return {}
    gap = gaps(rollout)
    found = {"sampler_gap": float(gap.mean()), "sampler_gap_max": float(gap.max())}
    if experience.importance is not None:
        found["sampler_weight"] = float(experience.importance[rollout.written_by(Author.POLICY)].mean())
    return found


class Phases:
    """How long the three steps of an update take, in seconds."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("collect", "assess", "learn"), 0.0)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time a block as a part of one of the steps."""
        started = time.perf_counter()
        yield
        self.seconds[phase] += time.perf_counter() - started

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def metrics(self, experience: Experience) -> dict[str, float]:
        """For the log, with how many response tokens that was per second."""
        return {
            "seconds": self.total,
            **{f"seconds_{phase}": taken for phase, taken in self.seconds.items()},
            "tokens_per_second": float(experience.rollout.response_mask.sum()) / self.total,
        }
