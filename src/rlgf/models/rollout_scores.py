"""Scoring passes over whole rollouts, or over texts that follow prompts, cut by length under a token budget."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from rlgf.models.batching import length_batches
from rlgf.models.critic import Critic
from rlgf.models.encoder_decoder import decoder_start
from rlgf.models.forward import Tokens, base_hidden, trunk_of
from rlgf.models.response_scores import response_scores
from rlgf.models.sampling import Sampling
from rlgf.types import Rollout, padded


def score_logprobs(
    model: PreTrainedModel,
    rollout: Rollout,
    sampling: Sampling,
    end_ids: Collection[int],
    max_batch_tokens: int,
) -> Float[Tensor, "B T"]:
    """Log-probability of every response token, under the distribution that it was drawn from.

    Returns:
        (B, T) on the CPU, 0 at padding.
    """

    def score(tokens: Tokens) -> Tensor:
        return response_scores(model, tokens, sampling, end_ids).logprobs

    return _over_batches(score, rollout, model.device, max_batch_tokens)


def score_values(
    critic: Critic, policy: PreTrainedModel, rollout: Rollout, max_batch_tokens: int
) -> Float[Tensor, "B T"]:
    """The critic's value of the state before every response token.

    Returns:
        (B, T) on the CPU, 0 at padding.
    """

    def score(tokens: Tokens) -> Tensor:
        hidden = None
        if critic.reads_policy_hidden:
            hidden = base_hidden(trunk_of(policy), tokens, decoder_start(policy))
        values: Tensor = critic(tokens, hidden)
        return values

    return _over_batches(score, rollout, policy.device, max_batch_tokens)


@torch.no_grad()
def _over_batches(
    score: Callable[[Tokens], Tensor], rollout: Rollout, device: torch.device, max_batch_tokens: int
) -> Float[Tensor, "B T"]:
    scores = torch.zeros(rollout.response_ids.shape)
    for rows in length_batches(rollout.prompt_mask.sum(dim=1), rollout.lengths, max_batch_tokens):
        tokens = Tokens.of(rollout[rows])
        length = tokens.response_ids.shape[1]
        scores[rows, :length] = score(tokens.to(device)).float().cpu() * tokens.response_mask
    return scores


@torch.no_grad()
def text_scores(
    model: PreTrainedModel,
    texts: Sequence[tuple[Sequence[int], Sequence[int]]],
    temperature: float,
    max_batch_tokens: int,
) -> list[list[float]]:
    """Log-probability of each token of each text.

    Args:
        texts: a prompt, of one token or more, and the tokens after it, which may be none.
        max_batch_tokens: rows times positions of one pass.
    """
    found: list[list[float]] = [[] for _ in texts]
    there = [number for number, (_, ids) in enumerate(texts) if ids]
    prompts, ends = (torch.tensor([len(texts[n][side]) for n in there], dtype=torch.long) for side in (0, 1))
    for rows in length_batches(prompts, ends, max_batch_tokens):
        chosen = [there[row] for row in rows.tolist()]
        before, after = ([texts[number][side] for number in chosen] for side in (0, 1))
        tokens = Tokens(*padded(before, 0, left=True), *padded(after, 0))
        scores = response_scores(model, tokens.to(model.device), Sampling(temperature=temperature), ())
        for number, logprobs in zip(chosen, scores.logprobs.float().cpu(), strict=True):
            found[number] = logprobs[: len(texts[number][1])].tolist()
    return found
