"""From rewards to advantages. Pure functions: tensors in, tensors out, nothing detached inside.

Masks mark the tokens of a response, which are contiguous from position 0. Positions outside the
mask come back as 0.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def gae(
    rewards: Float[Tensor, "B T"],
    values: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    gamma: float,
    gae_lambda: float,
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
    """Generalized advantage estimation over finished episodes.

    ``A_t = delta_t + gamma * lambda * A_t+1`` with
    ``delta_t = r_t + gamma * V(s_t+1) - V(s_t)`` and ``V = 0`` behind the last token
    (Schulman et al., arXiv 1506.02438, equation 16).

    ``values[:, t]`` is the value of the state *before* token t.

    Returns:
        Advantages (B, T) and the value targets ``A_t + V(s_t)`` (B, T).
    """
    rewards, values = rewards * mask, values * mask
    next_values = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    deltas = rewards + gamma * next_values - values
    running = torch.zeros_like(rewards[:, 0])
    columns = []
    for t in reversed(range(rewards.shape[1])):
        running = deltas[:, t] + gamma * gae_lambda * running
        columns.append(running)
    advantages = torch.stack(columns[::-1], dim=1) * mask
    return advantages, advantages + values


def group_relative(
    scores: Float[Tensor, "B"],
    groups: Int[Tensor, "B"],
    *,
    scale: bool = True,
    rewards: Float[Tensor, "B"] | None = None,
) -> Float[Tensor, "B"]:
    """How much better an episode did than its group: ``S_i - mean(S)``, over ``std(R)``.

    Groups share a prompt and a roll-in, so the mean is a baseline of one state. The standard
    deviation is that of the group's members (n in the denominator); a group whose members all
    scored alike gets 0 (GRPO: Shao et al., arXiv 2402.03300, section 4.1.2; ``scale=False`` is
    the variant of arXiv 2503.20783).

    Args:
        scores: S, with penalties.
        rewards: R, without them; default: the scores. In a group that fails or succeeds as a whole the
            penalties are all that differs, and over their own spread they would count as much as a
            reward does elsewhere.
    """
    rewards = scores if rewards is None else rewards
    mean, _ = _group_moments(scores, groups)
    rewards_mean, variance = _group_moments(rewards, groups)
    centred = scores - mean
    if not scale:
        return centred
    deviation = variance.sqrt()
    # Where members differ by no more than the mean's rounding, scaling would make noise an advantage.
    rounding = 16 * torch.finfo(scores.dtype).eps * rewards_mean.abs()
    return torch.where(deviation > rounding, centred / (deviation + 1e-6), 0.0)


def leave_one_out(scores: Float[Tensor, "B"], groups: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
    """``R_i`` less the mean of the other members of its group, an unbiased baseline.

    ``A_i = R_i - 1 / (k - 1) * sum over j != i of R_j = k / (k - 1) * (R_i - mean(R))``
    (RLOO: Ahmadian et al., arXiv 2402.14740). A group of one gets 0.
    """
    mean, _ = _group_moments(scores, groups)
    size = (groups[:, None] == groups[None, :]).sum(dim=1)
    return (scores - mean) * size / (size - 1).clamp(min=1)


def best_and_worst(scores: Float[Tensor, "B"], groups: Int[Tensor, "B"]) -> Int[Tensor, "N 2"]:
    """The episodes that scored highest and lowest in each group, in the order of the groups' numbers.

    Of equals the first counts; a group whose members all scored alike has no such pair.
    """
    pairs = []
    for group in torch.unique(groups):
        members = (groups == group).nonzero().squeeze(1)
        best, worst = members[scores[members].argmax()], members[scores[members].argmin()]
        if scores[best] > scores[worst]:
            pairs.append(torch.stack([best, worst]))
    return torch.stack(pairs) if pairs else torch.zeros(0, 2, dtype=torch.long)


def whiten(values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Shift and scale to mean 0 and variance 1 over the masked tokens of the whole batch."""
    count = mask.sum().clamp(min=1)
    mean = (values * mask).sum() / count
    variance = (((values - mean) * mask) ** 2).sum() / count
    return (values - mean) * torch.rsqrt(variance + 1e-8) * mask


def _group_moments(
    scores: Float[Tensor, "B"], groups: Int[Tensor, "B"]
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Mean and variance of each episode's group, one value an episode."""
    _, index = torch.unique(groups, return_inverse=True)
    size = torch.bincount(index).to(scores.dtype)
    mean = torch.zeros_like(size).index_add(0, index, scores) / size
    centred = scores - mean[index]
    variance = torch.zeros_like(size).index_add(0, index, centred**2) / size
    return mean[index], variance[index]
