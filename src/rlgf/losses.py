"""What the optimizer minimizes. Pure functions: tensors in, (loss, metrics) out.

Each loss is a *sum* over masked tokens divided by ``normalizer``, the number of masked tokens of
the whole optimizer step. The trainer passes the same normalizer to every micro-batch of a step, so
the gradient does not depend on how the step was cut up.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Metrics = dict[str, Tensor]


def clipped_surrogate(
    logprobs: Float[Tensor, "B T"],
    old_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    clip: float,
    normalizer: float,
) -> tuple[Float[Tensor, ""], Metrics]:
    """The clipped policy loss of PPO.

    ``-sum of min(rho * A, clip(rho, 1 - eps, 1 + eps) * A) / normalizer`` with
    ``rho = exp(logprobs - old_logprobs)`` (Schulman et al., arXiv 1707.06347, equation 7).

    Metrics, summed over masked tokens and divided by the normalizer: ``clip_fraction`` and
    ``update_kl``, the estimate ``(rho - 1) - log rho`` of KL(old || new), which is never negative.
    """
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0.0)
    ratio = log_ratio.exp()
    unclipped = ratio * advantages
    clipped = ratio.clamp(1 - clip, 1 + clip) * advantages
    loss = -(torch.minimum(unclipped, clipped) * mask).sum() / normalizer
    with torch.no_grad():
        metrics = {
            "clip_fraction": (((ratio - 1).abs() > clip) & mask).sum() / normalizer,
            "update_kl": torch.where(mask, kl_estimate(old_logprobs, logprobs), 0.0).sum() / normalizer,
        }
    return loss, metrics


def negative_log_likelihood(
    logprobs: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], normalizer: float
) -> tuple[Float[Tensor, ""], Metrics]:
    """``-sum of log pi(y_t | s_t) / normalizer``: behaviour cloning, supervised fine-tuning."""
    loss = -torch.where(mask, logprobs, 0.0).sum() / normalizer
    return loss, {"nll": loss.detach()}


def clipped_value(
    values: Float[Tensor, "B T"],
    old_values: Float[Tensor, "B T"],
    returns: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    clip: float,
    normalizer: float,
) -> tuple[Float[Tensor, ""], Metrics]:
    """Half the squared error of the value function, the larger of plain and clipped.

    ``1/2 sum of max((V - R)^2, (clip(V, V_old - eps, V_old + eps) - R)^2) / normalizer``, the
    value loss of the PPO reference implementation (Engstrom et al., arXiv 2005.12729, section 3).
    """
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    error = torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)
    loss = 0.5 * torch.where(mask, error, 0.0).sum() / normalizer
    return loss, {"value_loss": loss.detach()}


def entropy_bonus(
    entropy: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], normalizer: float
) -> tuple[Float[Tensor, ""], Metrics]:
    """Mean entropy of the sampling distribution, in nats a token; the trainer subtracts it."""
    bonus = torch.where(mask, entropy, 0.0).sum() / normalizer
    return bonus, {"entropy_bonus": bonus.detach()}


def kl_estimate(
    logprobs: Float[Tensor, "B T"], reference_logprobs: Float[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """An unbiased estimate of KL(policy || reference) at each sampled token, never negative.

    ``exp(d) - 1 - d`` with ``d = log reference - log policy`` (the estimator k3 of J. Schulman,
    "Approximating KL Divergence", 2020).
    """
    difference = reference_logprobs - logprobs
    # exp(d) - 1 cancels near 0, and what is left of the rounding is no KL.
    return (torch.expm1(difference) - difference).clamp(min=0)
