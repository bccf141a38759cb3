"""What a separate engine sampled, scored again by the model that is trained."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from rlgf.errors import UserError
from rlgf.models.language_model import LanguageModel
from rlgf.models.rollout_scores import score_logprobs
from rlgf.rollout.config import RolloutConfig
from rlgf.types import Author, Rollout


def rescored(rollout: Rollout, policy: LanguageModel, config: RolloutConfig) -> Rollout:
    """A rollout whose log-probabilities are the trained model's, beside those of the engine that sampled it.

    So ratios, the KL penalty and the entropy are all of one model, and an unchanged policy has ratio 1 and KL 0.
    """
    by_policy, engine = rollout.written_by(Author.POLICY), rollout.engine_logprobs
    if engine is None:  # else earlier weights have scored it already
        engine = rollout.sampled_logprobs
    if not by_policy.any():
        # The shares of other processes may have tokens of the policy's, and all must have the same fields.
        return replace(rollout, engine_logprobs=engine)
    with policy.running() as model:
        found = score_logprobs(model, rollout, config.sampling, policy.end_ids, config.max_batch_tokens)
    trainer = torch.where(by_policy, found, engine)
    return replace(rollout, sampled_logprobs=trainer, engine_logprobs=engine)


def require_same_weights(rollout: Rollout, largest_gap: float) -> None:
    """
    Raises:
        UserError: the two log-probabilities of a rescored rollout differ too much for the engine to have written with
            the model's weights.
    """
    if rollout.engine_logprobs is None or not rollout.written_by(Author.POLICY).any():
        return
    gap = float(gaps(rollout).mean())
    # Written so that a gap that is no number is refused, too.
    if not gap <= largest_gap:
        raise UserError(
            f"the engine's log-probabilities of its own texts are {gap:.3g} nats per token from those of the policy, "
            f"more than 'sampler.largest_gap' {largest_gap:g}: it does not write with the policy's weights; set "
            "'sampler.engine: builtin', or a larger bound if its precision explains that."
        )


def gaps(rollout: Rollout) -> Float[Tensor, "N"]:
    """|log p(trainer) - log p(engine)| of each token of the policy's."""
    assert rollout.engine_logprobs is not None, "written by a separate engine"
    gap = (rollout.sampled_logprobs - rollout.engine_logprobs).abs()
    return gap[rollout.written_by(Author.POLICY)]
