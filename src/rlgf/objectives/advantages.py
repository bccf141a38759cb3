"""From rewards to advantages. Pure functions: tensors in, tensors out, nothing detached inside.

Masks mark the tokens of a response, which are contiguous from position 0. Positions outside the
mask come back as 0.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlgf.objectives.losses import log_ratio


def gae(
    rewards: Float[Tensor, "B T"],
    values: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    gamma: float,
    gae_lambda: float,
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
    """Generalized advantage estimation over finished episodes.

    ``A_t = delta_t + gamma * lambda * A_t+1`` with
    ``delta_t = r_t + gamma * V(s_t+1) - V(s_t)`` and ``V = 0`` after the last token
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


def adaptive_lambda(
    rewards: Float[Tensor, "B T"], values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], gamma: float
) -> float:
    """The lambda of `gae` that trusts a critic as far as it foresees these episodes: ``1 - max(0, explained)``.

    ``explained`` is the `explained_variance` of the returns that were earned, those of lambda 1, which hold no
    values. A critic that explains nothing leaves 1, and so do episodes that all earn the same.

    Args:
        rewards, values, mask, gamma: as `gae` takes them.
    """
    _, returns = gae(rewards, values, mask, gamma, gae_lambda=1.0)
    explained = explained_variance(values[mask], returns[mask])
    return 1.0 - max(0.0, 0.0 if math.isnan(explained) else explained)


def explained_variance(values: Float[Tensor, "N"], returns: Float[Tensor, "N"]) -> float:
    """How much of the returns the critic foresaw: ``1 - Var(returns - values) / Var(returns)``.

    1 for a perfect critic, 0 for one that says the same everywhere, below 0 for a worse one; NaN where the returns do
    not vary by more than rounding.
    """
    if not len(returns):
        return math.nan
    spread = returns.var(correction=0)
    # Returns hold sums of values: where all episodes earn the same, what varies is the rounding of those.
    rounding = 1e-10 * (values.square().mean() + returns.square().mean())
    return float(1 - (returns - values).var(correction=0) / spread) if spread > rounding else math.nan


def group_relative(
    rewards: Float[Tensor, "B"], groups: Int[Tensor, "B"], *, scale: bool = True
) -> Float[Tensor, "B"]:
    """How much better an episode did than its group: ``(R_i - mean(R)) / std(R)``.

    Groups share a prompt and a roll-in, so the mean is a baseline of one state. The standard
    deviation is that of the group's members (n in the denominator); a group whose members all
    scored alike gets 0 (GRPO: Shao et al., arXiv 2402.03300, section 4.1.2; ``scale=False`` is
    the variant of arXiv 2503.20783).

    Args:
        rewards: R, without penalties. In a group that fails or succeeds as a whole the penalties would be
            all that differs, and over their own spread they would count as much as a reward does elsewhere.
    """
    centred, deviation, _ = _within_groups(rewards, groups)
    return (centred / (deviation + 1e-6) if scale else centred).to(rewards.dtype)


def leave_one_out(scores: Float[Tensor, "B"], groups: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
    """``R_i`` less the mean of the other members of its group, an unbiased baseline.

    ``A_i = R_i - 1 / (k - 1) * sum over j != i of R_j = k / (k - 1) * (R_i - mean(R))``
    (RLOO: Ahmadian et al., arXiv 2402.14740). A group of one gets 0.
    """
    centred, _, size = _within_groups(scores, groups)
    return (centred * size / (size - 1).clamp(min=1)).to(scores.dtype)


def optimal_value(rewards: Float[Tensor, "B n"], beta: float) -> Float[Tensor, "B"]:
    """``beta log mean_i exp(R_i / beta)`` over n texts of the reference: the value of the best policy for
    ``R - beta KL(pi || reference)``, estimated (Brantley et al., arXiv 2505.20686, whose beta_1 is ``beta``).

    Where all texts earn the same it is exactly that.
    """
    best = rewards.max(dim=1).values
    return best + beta * ((rewards - best[:, None]) / beta).exp().mean(dim=1).log()


def branched(
    rewards: Float[Tensor, "B"], values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """How much better the next state with a known value is than the last one (VinePPO: Kazemnejad et al., arXiv
    2410.01679, section 4).

    ``A_t = V(s_n) - V(s_c)``: c is the last such state at or before token t, n the first one after it; where there is
    none, R stands in place of ``V(s_n)``.

    Args:
        values: of the state before each token; NaN where it is not known. Before the first known one A is 0.
    """
    known = ~values.isnan() & mask
    last, following = torch.zeros_like(values), torch.zeros_like(values)
    value, next_value = torch.zeros_like(rewards), rewards
    begun = known.cumsum(dim=1) > 0
    for t in range(values.shape[1]):
        value = torch.where(known[:, t], values[:, t], value)
        last[:, t] = value
    for t in reversed(range(values.shape[1])):
        following[:, t] = next_value
        next_value = torch.where(known[:, t], values[:, t], next_value)
    return (following - last) * (mask & begun)


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


def rewarded_share(
    advantages: Float[Tensor, "B T"], rewards: Float[Tensor, "B"], mask: Bool[Tensor, "B T"]
) -> float:
    """How much of the advantages' spread the rewards can account for: ``min(1, std(R) / std(A))``.

    Both standard deviations are over the masked tokens, each token with the reward of its episode. An exact
    critic leaves advantages that vary no more than the rewards do. What goes beyond is the critic's error or the
    penalties, and whitening would make a lesson of it; whitened advantages are multiplied by this share.

    Returns:
        A number from 0 to 1; 0 where the rewards are alike.
    """
    paid, found = rewards[:, None].expand_as(advantages)[mask].double(), advantages[mask].double()
    if not len(paid) or _alike(paid.std(correction=0), paid.mean(), rewards.dtype):
        return 0.0
    return min(1.0, float(paid.std(correction=0) / found.std(correction=0).clamp(min=1e-300)))


def _within_groups(
    scores: Float[Tensor, "B"], groups: Int[Tensor, "B"]
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"], Int[Tensor, "B"]]:
    """Each episode's distance from its group's mean, and the group's deviation and size.

    Distance and deviation are in double precision, and 0 where the members scored alike.
    """
    _, index = torch.unique(groups, return_inverse=True)
    size = torch.bincount(index)
    exact = scores.double()
    sums = torch.zeros(len(size), dtype=exact.dtype)
    mean = sums.index_add(0, index, exact) / size
    centred = exact - mean[index]
    deviation = (sums.index_add(0, index, centred**2) / size).sqrt()
    differ = ~_alike(deviation, mean, scores.dtype)
    return centred * differ[index], (deviation * differ)[index], size[index]


def _alike(deviation: Tensor, mean: Tensor, dtype: torch.dtype) -> Tensor:
    """Whether numbers of a precision differ by no more than rounding, which no scaling may make a signal."""
    return deviation <= 16 * torch.finfo(dtype).eps * mean.abs()


def guide_log_ratio(
    guide_logprobs: Float[Tensor, "B T"], logprobs: Float[Tensor, "B T"], chunks: Int[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """How much more probable the guide finds what the policy wrote: ``A_t = log g(c | s) - log pi(c | s)``.

    c is the chunk of the text that token t belongs to, s the text before it, and each token of a chunk gets all of it,
    since the policy chose them together; with one tokenizer c is the token itself. Over tokens that the policy draws,
    the expectation of ``A_t grad log pi(y_t | s_t)`` at one state is ``-grad KL(pi || g)``, so that no reward is
    needed (Gu et al., arXiv 2306.08543, section 2.2: the single-step part of the gradient; Lu et al. 2025, "On-Policy
    Distillation", Thinking Machines Lab: the reverse KL as the advantage, without a discounted future). What rounding
    alone can make counts as nothing, see `losses.log_ratio`.

    Args:
        guide_logprobs: the guide's, of the chunk that each token belongs to.
        logprobs: the policy's, of each token under the distribution it was drawn from.
        chunks: the number of each token's chunk, from 1 on; tokens of the number 0 get the advantage 0.
    """
    sums = torch.zeros(len(chunks), int(chunks.max()) + 1).scatter_add(1, chunks, logprobs)
    return torch.where(chunks > 0, -log_ratio(sums.gather(1, chunks), guide_logprobs), 0.0)


def importance_weights(
    logprobs: Float[Tensor, "B T"], engine_logprobs: Float[Tensor, "B T"], bound: float
) -> Float[Tensor, "B T"]:
    """``min(pi(y_t | s_t) / engine(y_t | s_t), bound)``: truncated importance weights of tokens that an engine drew.

    An engine computes the policy's probabilities with other kernels, and often in another precision, so it draws from
    a distribution that is not quite the policy's; who samples ahead draws from the policy of some updates ago.
    Weighting advantages by the ratio mends that in expectation, state by state; the bound keeps the variance finite
    (Ionides 2008, "Truncated Importance Sampling"; for engines Yao et al. 2025, "Your Efficient RL Framework Secretly
    Brings You Off-Policy RL Training"; for earlier weights, with pi the policy before the update, Hilton et al., arXiv
    2110.00641, and Fu et al., arXiv 2505.24298, section 5.2).
    """
    return (logprobs - engine_logprobs).exp().clamp(max=bound)
