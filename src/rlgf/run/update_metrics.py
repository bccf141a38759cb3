"""What the episodes of an update looked like, in numbers."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlgf.algorithms import Algorithm
from rlgf.learning.inputs import read_by, read_by_any
from rlgf.objectives.advantages import explained_variance
from rlgf.objectives.losses import kl_estimate
from rlgf.rollout.assembly import gaps
from rlgf.types import Author, Experience, Rollout, Scored


def mean_kl(scored: Scored) -> float | None:
    """KL(policy || reference) in nats per token, over the policy's tokens; never negative.

    None where the policy wrote nothing, or the row does not read the reference.
    """
    rollout = scored.rollout
    mask = rollout.written_by(Author.POLICY)
    if scored.reference_logprobs is None or not mask.any():
        return None
    estimate = kl_estimate(rollout.sampled_logprobs, scored.reference_logprobs)
    return float(torch.where(mask, estimate, 0.0).sum() / mask.sum())


def describe(experience: Experience, row: Algorithm) -> dict[str, float]:
    """What the episodes of an update looked like; nothing where a loop of the user's own has left none."""
    scored, rollout = experience.scored, experience.rollout
    if not len(rollout):
        return {}
    found = {"response_tokens": float(rollout.authored.sum(dim=1).float().mean())}
    if (kl := mean_kl(scored)) is not None:
        found["kl"] = kl
    if row.kl_penalty is not None:
        found["kl_coefficient"] = experience.kl_coefficient
    if scored.rewards is not None:
        by_policy = rollout.written_by(Author.POLICY)
        read = read_by_any((term for term in row.terms.values() if not term.of_critic), rollout, row)
        learned = read if experience.pairs is None else read[experience.pairs.flatten()]
        found |= {
            "reward": float(scored.rewards.mean()),
            "learned_tokens": float(learned.sum()),
            "guide_altered": float(rollout.altered.sum()),
        }
        if by_policy.any():
            found["entropy"] = float(-(rollout.sampled_logprobs * by_policy).sum() / by_policy.sum())
        for term, values in scored.reward_terms.items():
            # Where a term applies to no text of the update there is nothing to say.
            if not values.isnan().all():
                found[f"reward/{term}"] = float(values.nanmean())
        found |= _of_help(scored)
        if row.grouped and row.group_size > 1:
            found["groups_alike"] = groups_alike(scored.rewards, rollout.group)
        for guide in sorted({name for name in rollout.guides if name is not None}):
            wrote = torch.tensor([name == guide for name in rollout.guides])
            found[f"reward/{guide}"] = float(scored.rewards[wrote].mean())
    if row.value_term is not None and experience.returns is not None and scored.values is not None:
        read = read_by(row.value_term, rollout, row)
        explained = explained_variance(scored.values[read], experience.returns[read])
        if not math.isnan(explained):
            found["explained_variance"] = explained
        if row.gae_lambda == "adaptive" and experience.gae_lambda is not None:
            found["gae_lambda"] = experience.gae_lambda
    found |= _of_hints(rollout)
    return found | _of_guide_texts(scored, row) | _of_guide_scores(scored) | _of_engine(experience)


def logged_by_rewards(scored: Scored) -> dict[str, float]:
    """What rewards were told to log; a name of ours stays ours, whoever else takes it."""
    return {name: float(values.nanmean()) for name, values in scored.logged.items()}


def _of_guide_scores(scored: Scored) -> dict[str, float]:
    """How far the policy is from a guide that scores its texts.

    Returns:
        ``guide_kl``: nats per token by which the policy finds its own texts more probable than the guide does, an
        estimate of KL(policy || guide) over the tokens that the guide could be compared at; ``guide_seen``: the share of
        the policy's tokens that these are.
    """
    rollout, chunks, said = scored.rollout, scored.chunks, scored.guide_logprobs
    if chunks is None or said is None:
        return {}
    seen, by_policy = chunks > 0, rollout.written_by(Author.POLICY)
    found = {"guide_seen": float(seen.sum() / by_policy.sum().clamp(min=1))}
    if seen.any():
        # A chunk has one probability, which stands at each of its tokens.
        counts = torch.zeros(len(chunks), int(chunks.max()) + 1).scatter_add(1, chunks, seen.float())
        shares = said[seen] / counts.gather(1, chunks)[seen]
        found["guide_kl"] = float((rollout.sampled_logprobs[seen] - shares).mean())
    return found


def _of_engine(experience: Experience) -> dict[str, float]:
    """How far an engine that sampled is from the policy, in nats per token, and what that weighs."""
    rollout = experience.rollout
    if rollout.engine_logprobs is None or not rollout.written_by(Author.POLICY).any():
        return {}
    gap = gaps(rollout)
    found = {"sampler_gap": float(gap.mean()), "sampler_gap_max": float(gap.max())}
    if experience.importance is not None:
        found["sampler_weight"] = float(experience.importance[rollout.written_by(Author.POLICY)].mean())
    return found


def groups_alike(rewards: Float[Tensor, "B"], group: Int[Tensor, "B"]) -> float:
    """The share of groups whose members all earn the same, so that none is better than another."""
    earned = [rewards[group == number] for number in group.unique()]
    return sum(bool((one == one[0]).all()) for one in earned) / len(earned)


def _of_help(scored: Scored) -> dict[str, float]:
    """How much of the episodes others than the policy wrote, or put into their prompts as hints, and the mean reward with
    and without that."""
    assert scored.rewards is not None, "described for rows with a reward"
    rollout = scored.rollout
    others = rollout.authored & ~rollout.written_by(Author.POLICY)
    helped = others.any(dim=1) | rollout.hinted
    if not helped.any():
        return {}
    alone = {} if helped.all() else {"reward_alone": float(scored.rewards[~helped].mean())}
    return {
        "helped": float(helped.float().mean()),
        "help_tokens": float((others.sum() + rollout.hint_tokens.sum()) / helped.sum()),
        "reward_helped": float(scored.rewards[helped].mean()),
        **alone,
    }


def _of_hints(rollout: Rollout) -> dict[str, float]:
    """``hint_cut``: of the hints, the share that was cut or left out for want of room."""
    if rollout.hints is None or rollout.hint_cut is None:
        return {}
    there = rollout.hint_cut | torch.tensor([hint is not None for hint in rollout.hints])
    return {"hint_cut": float(rollout.hint_cut[there].float().mean())} if there.any() else {}


def _of_guide_texts(scored: Scored, row: Algorithm) -> dict[str, float]:
    """Faults of a guide's texts, where it wrote any.

    Returns:
        ``guide_blank``: of the texts that a guide was to begin, to finish or to write as examples, the share in which it
        wrote nothing. ``guide_cut``: of those that it was to finish, the share without an end; neither of dialogues.
        ``guide_gap``: how many nats per token less probable its texts are than the policy's own, both under the policy's
        start.
    """
    rollout = scored.rollout
    by_guide, by_policy = (rollout.written_by(author) for author in (Author.GUIDE, Author.POLICY))
    wrote = by_guide.any(dim=1)
    found = {}
    texts = rollout.dialogues is None  # which end in many ways, and may begin without the guide after all
    asked = torch.zeros_like(wrote)
    if row.script.rollout is Author.GUIDE:
        asked = wrote | ~rollout.finished  # another's beginning may end the text
    elif row.script.rollin is Author.GUIDE and row.help.length.by == "law" and rollout.help_limit is not None:
        asked = rollout.help_limit > 0
    if texts and asked.any():
        # An end alone says nothing, and is nothing to begin with.
        last = by_guide.gather(1, (rollout.lengths - 1)[:, None])[:, 0]
        blank = by_guide.sum(dim=1) <= (last & rollout.finished)
        found["guide_blank"] = float(blank[asked].float().mean())
    elif row.examples is Author.GUIDE and rollout.examples is not None:
        found["guide_blank"] = sum(not text.strip() for text in rollout.examples) / len(rollout)
    if texts and row.script.rollout is Author.GUIDE and wrote.any():
        found["guide_cut"] = float((~rollout.finished)[wrote].float().mean())
    start = scored.reference_logprobs
    if start is not None and by_guide.any() and by_policy.any():
        # A token that the start never writes counts as a very improbable one.
        found["guide_gap"] = float(start[by_policy].mean() - start[by_guide].clamp(min=-50).mean())
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
