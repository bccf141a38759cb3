"""What the optimizer minimizes. Pure functions: tensors in, a loss out, or (loss, metrics).

Each names as parameters what it reads, see `rlgf.algorithms.terms.LossInputs`. It is a *sum* over masked tokens
divided by ``normalizer``, the number of masked tokens of the whole optimizer step. The updater passes the same
normalizer to every micro-batch of a step, so the gradient does not depend on how the step was cut up.

A selector, such as `top_entropy`, names what it reads likewise (`rlgf.algorithms.terms.SELECTABLE`) and returns a weight
of 0 or more for each token, by which the gradient of a loss at the token is multiplied. What the loss is divided by stays,
and a weight must depend on its own text alone, so that the gradient does not depend on micro-batches.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float
from torch import Tensor

SomeShare = Annotated[float, Gt(0), Le(1)]


def top_entropy(
    entropy: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], share: SomeShare = 0.2
) -> Float[Tensor, "B T"]:
    """1 at the share of each text's tokens at which the policy's distribution has the highest entropy, else 0.

    Of n tokens that the term reads in a text these are ``ceil(share * n)``; of equals the earlier ones (entropy-based
    clipping of Prefix-RFT, Huang et al., arXiv 2507.01679).
    """
    # A share such as 0.07 of 100 is 7, and not a rounding above it.
    wanted = (share * mask.sum(dim=1, keepdim=True) - 1e-6).ceil()
    order = entropy.masked_fill(~mask, -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)
    return ((rank < wanted) & mask).to(entropy.dtype)


def finished(finished: Bool[Tensor, "B"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """1 at each token of a text that its author ended, 0 in those that the length limit cut off.

    What a text that is cut off earned says little of its tokens (overlong filtering of DAPO, Yu et al., arXiv
    2503.14476, section 3.4).
    """
    return finished[:, None].expand_as(mask).float()


def uncertainty(logprobs: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """``p (1 - p)`` with p the policy's probability of the token: most at 1/2, 0 where it is sure or has no idea.

    The token-wise weight phi of CHORD (Zhang et al., arXiv 2508.11408).
    """
    p = logprobs.exp()
    return p * (1 - p)


Metrics = dict[str, Tensor]

Positive = Annotated[float, Gt(0)]
Share = Annotated[float, Ge(0), Le(1)]


def clipped_surrogate(
    logprobs: Float[Tensor, "B T"],
    old_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    normalizer: float,
    clip: Positive = 0.2,
    clip_high: Positive | None = None,
    tokens: float | None = None,
) -> tuple[Float[Tensor, ""], Metrics]:
    """The clipped policy loss of PPO.

    ``-sum of min(rho * A, clip(rho, 1 - eps, 1 + eps_high) * A) / normalizer`` with
    ``rho = exp(logprobs - old_logprobs)`` (Schulman et al., arXiv 1707.06347, equation 7; an upper bound of its own is
    that of DAPO, Yu et al., arXiv 2503.14476, section 3.1).

    Metrics: ``clip_fraction``, the share of masked tokens whose ratio is outside the clip range.

    Args:
        clip_high: eps_high; default: ``clip``, eps.
        tokens: how many tokens are masked in the whole optimizer step; default: the normalizer.
    """
    ratio = torch.where(mask, logprobs - old_logprobs, 0.0).exp()
    surrogate, outside = _clipped(ratio, advantages, clip, clip_high)
    loss = -(surrogate * mask).sum() / normalizer
    return loss, {"clip_fraction": (outside & mask).sum() / (tokens or normalizer)}


def clipped_surrogate_of_texts(
    logprobs: Float[Tensor, "B T"],
    old_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    texts: float,
    tokens: float,
    clip: Positive = 0.2,
    clip_high: Positive | None = None,
    ratio: Literal["token", "text"] = "token",
    length: Annotated[int, Gt(0)] | None = None,
) -> tuple[Float[Tensor, ""], Metrics]:
    """The clipped policy loss as a mean over texts of what each comes to.

    ``-sum over texts of (sum over t of min(rho_t * A_t, clip(rho_t, 1 - eps, 1 + eps_high) * A_t)) / length / texts``.
    With each text's own number n of tokens as its length this is the loss of GRPO's paper (Shao et al., arXiv
    2402.03300, equation 3); with one length for all, that of Dr. GRPO (Liu et al., arXiv 2503.20783, section 3.2); with
    the ratio of texts, ``rho_t = (pi(y) / old(y))^(1/n)``, that of GSPO (Zheng et al., arXiv 2507.18071, equation 5).

    Metrics: ``clip_fraction``, as in `clipped_surrogate`.

    Args:
        texts: the texts of the whole optimizer step.
        tokens: how many tokens are masked in it.
        clip_high: eps_high; default: ``clip``, eps.
        ratio: whether each token has a ratio of its own, or all tokens of a text that of the text.
        length: what the sum of each text is divided by; default: n.
    """
    own = mask.sum(dim=1, keepdim=True).clamp(min=1)
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0.0)
    if ratio == "text":
        log_ratio = (log_ratio.sum(dim=1, keepdim=True) / own).expand_as(mask)
    surrogate, outside = _clipped(log_ratio.exp(), advantages, clip, clip_high)
    loss = -(surrogate * mask / (own if length is None else length)).sum() / texts
    return loss, {"clip_fraction": (outside & mask).sum() / tokens}


def _clipped(
    ratio: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    clip: float,
    clip_high: float | None,
) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """The smaller of the plain and the clipped ratio times the advantage, and where the ratio is outside."""
    high = clip if clip_high is None else clip_high
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + high) * advantages)
    return surrogate, ((ratio - 1 > high) | (1 - ratio > clip)).detach()


@torch.no_grad()
def update_kl(
    logprobs: Float[Tensor, "B T"],
    old_logprobs: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    normalizer: float,
) -> Float[Tensor, ""]:
    """How far an update has gone: ``sum of (rho - 1) - log rho / normalizer``, rho the probability ratio.

    In nats per token and never negative; where the old policy drew the tokens, an estimate of KL(old || new).
    """
    return torch.where(mask, kl_estimate(old_logprobs, logprobs), 0.0).sum() / normalizer


def negative_log_likelihood(
    logprobs: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], normalizer: float
) -> Float[Tensor, ""]:
    """``-sum of log pi(y_t | s_t) / normalizer``: behaviour cloning, supervised fine-tuning."""
    return -torch.where(mask, logprobs, 0.0).sum() / normalizer


def policy_gradient(
    logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    normalizer: float,
) -> Float[Tensor, ""]:
    """The plain policy gradient, also for tokens of a writer whose probabilities are not known.

    ``-sum of A_t log pi(y_t | s_t) / normalizer`` (Williams, 1992). Where the policy wrote the tokens itself this is
    the gradient before its first step; of what others wrote it is imitation, weighted by the advantage.
    """
    return -torch.where(mask, logprobs * advantages, 0.0).sum() / normalizer


def shaped_importance(
    logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    normalizer: float,
    shape: Positive = 0.1,
    tokens: float | None = None,
) -> tuple[Float[Tensor, ""], Metrics]:
    """Importance-weighted policy gradient for tokens that somebody else wrote.

    ``-sum of f(pi(y_t | s_t)) A_t / normalizer`` with ``f(x) = x / (x + shape)``: the ratio to a writer
    whose probabilities are not known, taken for 1, shaped so that tokens that the policy finds
    improbable keep a gradient (policy shaping of LUFFY, Yan et al., arXiv 2504.14945).

    Metrics: ``shaped_weight``, the mean of f over masked tokens.

    Args:
        tokens: see `clipped_surrogate`.
    """
    weight = torch.sigmoid(logprobs - math.log(shape))
    loss = -torch.where(mask, weight * advantages, 0.0).sum() / normalizer
    return loss, {"shaped_weight": torch.where(mask, weight, 0.0).sum().detach() / (tokens or normalizer)}


def shaped_ratio(
    logprobs: Float[Tensor, "B T"],
    old_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    normalizer: float,
    shape: Positive = 0.1,
    tokens: float | None = None,
) -> tuple[Float[Tensor, ""], Metrics]:
    """As `shaped_importance`, for tokens of a writer whose probabilities are known.

    ``-sum of f(rho) A_t / normalizer`` with ``f(x) = x / (x + shape)`` and ``rho = exp(logprobs - old_logprobs)``, the
    ratio to who drew the token: the policy at an earlier visit (ExGRPO: Zhan et al., arXiv 2510.02245).
    """
    return shaped_importance(logprobs - old_logprobs, advantages, mask, normalizer, shape, tokens)


def dpo(
    reference_log_ratios: Float[Tensor, "N 2"], normalizer: float, beta: Positive = 0.1
) -> tuple[Float[Tensor, ""], Metrics]:
    """The loss of direct preference optimization, summed over pairs.

    ``-sum of log sigmoid(beta (log pi(y+) / ref(y+) - log pi(y-) / ref(y-))) / normalizer`` (Rafailov et
    al., arXiv 2305.18290, equation 7).

    Metrics, means over the step's pairs: ``margin``, the argument of the sigmoid, and ``pair_accuracy``,
    the share of pairs whose margin is above 0.

    Args:
        reference_log_ratios: log pi(y) / ref(y) of whole texts, in nats, the better text first.
        normalizer: the pairs of the whole optimizer step.
    """
    margin = beta * (reference_log_ratios[:, 0] - reference_log_ratios[:, 1])
    loss = -torch.nn.functional.logsigmoid(margin).sum() / normalizer
    return loss, _pair_metrics(margin, normalizer)


def rebel(
    old_log_ratios: Float[Tensor, "N 2"],
    difference: Float[Tensor, "N"],
    normalizer: float,
    beta: Positive = 1.0,
) -> tuple[Float[Tensor, ""], Metrics]:
    """The loss of REBEL: regress the difference of two rewards on the policy's own change, summed over pairs.

    ``sum of (beta (log pi(y) / old(y) - log pi(y') / old(y')) - (R(y) - R(y')))^2 / normalizer`` (Gao et
    al., arXiv 2404.16767, equation 1; its ``1 / eta`` is ``beta``).

    Metrics: as `dpo`, the margin is the number that is regressed.

    Args:
        old_log_ratios: log pi(y) / old(y) of whole texts, in nats; old is the policy before the update.
        difference: R(y) - R(y').
        normalizer: the pairs of the whole optimizer step.
    """
    margin = beta * (old_log_ratios[:, 0] - old_log_ratios[:, 1])
    loss = ((margin - difference) ** 2).sum() / normalizer
    return loss, _pair_metrics(margin, normalizer)


def advantage_regression(
    logprobs: Float[Tensor, "B T"],
    reference_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    texts: float,
    beta: Positive = 1e-3,
) -> Float[Tensor, ""]:
    """The loss of A*-PO: regress the advantage of a whole text on how far the policy is from its start.

    ``sum over texts of (beta log pi(y) / ref(y) - A)^2 / texts`` (Brantley et al., arXiv 2505.20686, whose beta_2 is
    ``beta``).

    Args:
        advantages: A = R(y) - V*, the same at all tokens of a text.
        texts: the texts of the whole optimizer step.
    """
    # A difference of rounding counts as none, and has its gradient all the same: a run begins where all are such.
    moved = log_ratio(logprobs, reference_logprobs).detach() + (logprobs - logprobs.detach())
    change = torch.where(mask, moved, 0.0).sum(dim=1)
    advantage = torch.where(mask, advantages, 0.0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return ((beta * change - advantage) ** 2).sum() / texts


def _pair_metrics(margin: Float[Tensor, "N"], normalizer: float) -> Metrics:
    margin = margin.detach()
    return {"margin": margin.sum() / normalizer, "pair_accuracy": (margin > 0).sum() / normalizer}


def clipped_value(
    values: Float[Tensor, "B T"],
    old_values: Float[Tensor, "B T"],
    returns: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    normalizer: float,
    clip: Positive = 0.2,
) -> Float[Tensor, ""]:
    """Half the squared error of the value function, the larger of plain and clipped.

    ``1/2 sum of max((V - R)^2, (clip(V, V_old - eps, V_old + eps) - R)^2) / normalizer``, the
    value loss of the PPO reference implementation (Engstrom et al., arXiv 2005.12729, section 3).
    """
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    error = torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)
    return 0.5 * torch.where(mask, error, 0.0).sum() / normalizer


def negative_entropy(
    entropy: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], normalizer: float
) -> Float[Tensor, ""]:
    """``-sum of H(pi(. | s_t)) / normalizer``, in nats per token: as a term it is an entropy bonus."""
    return -(torch.where(mask, entropy, 0.0).sum() / normalizer)


def distillation(
    distribution: Float[Tensor, "B T V"],
    guide_distribution: Float[Tensor, "B T V"],
    mask: Bool[Tensor, "B T"],
    normalizer: float,
    jsd_beta: Share = 1.0,
) -> Float[Tensor, ""]:
    """The divergence of the policy from the guide, exact over the vocabulary at each state.

    The generalized Jensen-Shannon divergence ``beta KL(g || m) + (1 - beta) KL(pi || m)`` with
    ``m = beta g + (1 - beta) pi``, summed over masked tokens and divided by the normalizer (Agarwal
    et al., arXiv 2306.13649, the generalized JSD, with the guide g as P and the policy pi as Q). Divided by
    ``beta`` it tends to the forward ``KL(g || pi)`` for beta to 0, and divided by ``1 - beta`` to the
    reverse ``KL(pi || g)`` for beta to 1; at 0 and 1 themselves, where it would be 0, the loss *is*
    that KL.

    Args:
        distribution: the policy's log-probabilities. The gradient flows through them alone: the states are given, and
            how they were sampled is not differentiated.
        guide_distribution: the guide's log-probabilities, detached. Tokens that neither can draw (-inf in both) add nothing; a
            KL is immense where only its second argument cannot draw a token.
    """
    # 0 * -inf would be NaN, in the gradient too.
    least = torch.finfo(distribution.dtype).min
    p, q = guide_distribution.clamp(min=least), distribution.clamp(min=least)
    if jsd_beta == 0:
        divergence = _kl(p, q)
    elif jsd_beta == 1:
        divergence = _kl(q, p)
    else:
        middle = torch.logaddexp(p + math.log(jsd_beta), q + math.log1p(-jsd_beta))
        divergence = jsd_beta * _kl(p, middle) + (1 - jsd_beta) * _kl(q, middle)
    return torch.where(mask, divergence, 0.0).sum() / normalizer


def kl_to_reference(
    logprobs: Float[Tensor, "B T"],
    old_logprobs: Float[Tensor, "B T"],
    reference_logprobs: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    normalizer: float,
    kl_coefficient: float,
    importance: Float[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, ""], Metrics]:
    """The KL penalty as a term of the loss, for tokens that the policy sampled before the update.

    ``c/2 sum of rho d^2 / normalizer`` with c the coefficient, ``d = log pi - log reference`` and ``rho = pi / old``,
    of which only d is differentiated. The gradient at a token is ``c rho d grad log pi``; over what old samples at a
    state that is c times the gradient of KL(pi || reference) there, for any pi. The states are given, as in GRPO's own
    penalty (Shao et al., arXiv 2402.03300, equation 4). That one is the estimator k3 = `kl_estimate`; differentiated
    alone, k3 has the gradient of KL(reference || pi) and k2 = d^2 / 2 this one (J. Schulman, "Approximating KL
    Divergence", 2020). Weighted by a rho that is differentiated too, k3 has the same gradient as here.

    Metrics: ``estimate``, the mean of rho k3, which estimates KL(pi || reference) without bias and is never negative.

    Args:
        importance: old / sampler, where another than old sampled the tokens; multiplies rho.
    """
    ratio = torch.where(mask, logprobs - old_logprobs, 0.0).exp().detach()
    if importance is not None:
        ratio = ratio * importance
    difference = torch.where(mask, log_ratio(logprobs, reference_logprobs), 0.0)
    loss = kl_coefficient * (0.5 * (ratio * difference**2).sum() / normalizer)
    with torch.no_grad():
        estimate = torch.where(mask, kl_estimate(logprobs, reference_logprobs), 0.0)
        return loss, {"estimate": (ratio * estimate).sum() / normalizer}


def _kl(p: Float[Tensor, "B T V"], q: Float[Tensor, "B T V"]) -> Float[Tensor, "B T"]:
    """KL of distributions given by their logarithms."""
    return (p.exp() * (p - q)).sum(dim=-1)


def kl_estimate(
    logprobs: Float[Tensor, "B T"], reference_logprobs: Float[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """An unbiased estimate of KL(policy || reference) at each sampled token, never negative.

    ``exp(d) - 1 - d`` with ``d = log reference - log policy`` (the estimator k3 of J. Schulman,
    "Approximating KL Divergence", 2020).
    """
    difference = reference_logprobs - logprobs
    # exp(d) - 1 cancels near 0, and the rest of the rounding is not a KL.
    return (torch.expm1(difference) - difference).clamp(min=0)


ROUNDING = 1e-4
"""Nats. Two passes of one model in float32, token by token and all at once, differed by up to 3e-5 at 30 layers."""


def log_ratio(
    logprobs: Float[Tensor, "B T"], reference_logprobs: Float[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """``log policy - log reference`` at each token, 0 where rounding alone can make the difference.

    An optimizer that divides by the size of past gradients turns ever so small a gradient into a whole step, so
    a policy that is its reference must not get one.
    """
    difference = logprobs - reference_logprobs
    return torch.where(difference.abs() > ROUNDING, difference, 0.0)
