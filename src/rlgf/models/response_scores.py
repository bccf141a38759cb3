"""Log-probabilities and entropies of responses, with the vocabulary in pieces where it is large.

Logits of a whole micro-batch are the largest tensor of an update: 16,384 tokens over a vocabulary of 49,152 take
3.2 GB, and the softmax and its gradient as much again. In pieces of some hundred tokens they take a hundred MB, for
one more product with the head in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from rlgf.kept import KeptTokens
from rlgf.models.abilities import abilities, mixed_precision
from rlgf.models.critic import Critic
from rlgf.models.encoder_decoder import decoder_start
from rlgf.models.forward import Tokens, base_hidden, length_batches, response_outputs, trunk_of
from rlgf.models.sampling import Sampling, entropy, token_logprobs
from rlgf.models.vocabulary import read_logits
from rlgf.types import Rollout, padded

MOST_LOGITS = 2**25
"""How many logits may be there at once where a gradient is wanted; more are computed in pieces, twice."""
MOST_PIECE = 2**23
"""How many a piece has. Without a gradient pieces cost nothing, so there are never more."""


@dataclass(frozen=True)
class ResponseScores:
    """What a model says of response tokens, with gradients; at padding the numbers mean nothing, and a field that
    nobody asked for is None."""

    logprobs: Float[Tensor, "B T"]
    """Of each token, under the distribution that it was drawn from."""
    entropy: Float[Tensor, "B T"] | None
    """Of those distributions, in nats."""
    hidden: Float[Tensor, "B T D"] | None
    """The last hidden states."""


def response_scores(
    model: PreTrainedModel,
    tokens: Tokens,
    sampling: Sampling,
    end_ids: Collection[int],
    with_entropy: bool = False,
    *,
    hidden: bool = False,
) -> ResponseScores:
    """One pass over prompts and responses.

    Args:
        end_ids: the tokens that end a text.
        with_entropy: whether to compute the entropies.
        hidden: whether to return the last hidden states.
    """
    head = model.get_output_embeddings()
    width = len(head.weight) if abilities(model).plain_head and head is not None else 0
    most = MOST_LOGITS if torch.is_grad_enabled() else MOST_PIECE
    if tokens.response_ids.numel() * width <= most:
        logits, states = response_outputs(model, tokens, hidden=hidden)
        logprobs, entropies = scores_of(logits, tokens, sampling, end_ids, with_entropy)
        return ResponseScores(logprobs, entropies, states)
    states = base_hidden(trunk_of(model), tokens, decoder_start(model))
    size = max(1, MOST_PIECE // width)
    logprobs, entropies = _in_pieces(model, tokens, sampling, end_ids, with_entropy, states, size)
    return ResponseScores(logprobs, entropies, states if hidden else None)


def scores_of(
    logits: Float[Tensor, "B T V"],
    tokens: Tokens,
    sampling: Sampling,
    end_ids: Collection[int],
    with_entropy: bool,
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"] | None]:
    """Log-probabilities and, where asked for, entropies from the logits of a pass over ``tokens``."""
    kept = tokens.kept_mask(logits.shape[-1])
    logprobs = token_logprobs(logits, tokens.response_ids, sampling, end_ids, kept, tokens.given)
    return logprobs, entropy(logits, sampling, end_ids, kept) if with_entropy else None


def _in_pieces(
    model: PreTrainedModel,
    tokens: Tokens,
    sampling: Sampling,
    end_ids: Collection[int],
    with_entropy: bool,
    hidden: Float[Tensor, "B T D"],
    size: int,
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"] | None]:
    """As `scores_of`, from the last hidden states of the response tokens, so many at a time and without padding."""
    mask: Bool[Tensor, "B T"] = tokens.response_mask
    rows, columns = (one.to(mask.device) for one in tokens.near.response_mask.nonzero(as_tuple=True))
    states, ids = hidden[rows, columns], tokens.response_ids[rows, columns]
    givens = None if tokens.given is None else tokens.given[rows, columns]
    sets, head = _one_after_another(tokens), model.get_output_embeddings()
    assert head is not None, "a model with a plain head has one"

    def score(states: Float[Tensor, "N D"], piece: Int[Tensor, "N"]) -> tuple[Tensor, Tensor]:
        with mixed_precision(states.device):
            logits = read_logits(model, head(states))[None]
        kept = None
        if sets is not None:
            kept = sets.take(piece).mask(len(piece), logits.shape[-1], states.device)[None]
        positions = columns[piece][None]
        given = None if givens is None else givens[piece][None]
        logprobs = token_logprobs(logits, ids[piece][None], sampling, end_ids, kept, given, positions)[0]
        return logprobs, entropy(logits, sampling, end_ids, kept, positions)[0] if with_entropy else logprobs

    def spread(parts: tuple[Tensor, ...]) -> Float[Tensor, "B T"]:
        values = torch.cat(parts)
        return values.new_zeros(mask.shape).masked_scatter(mask, values)

    found = []
    for piece in torch.arange(len(states)).split(size):
        if torch.is_grad_enabled():
            found.append(checkpoint(score, states[piece], piece, use_reentrant=False))
        else:
            found.append(score(states[piece], piece))
    logprobs, entropies = zip(*found, strict=True)
    return spread(logprobs), spread(entropies) if with_entropy else None


def _one_after_another(tokens: Tokens) -> KeptTokens | None:
    """The kept sets of all response tokens, in the order of a mask's true entries."""
    there = next((sets for sets in tokens.kept if sets is not None), None)
    if there is None:
        return None
    lengths = tokens.near.response_mask.sum(dim=1).tolist()
    nothing = KeptTokens(there.vocabulary, torch.zeros(max(lengths), dtype=torch.long), there.words[:0])
    return KeptTokens.join(
        [
            (nothing if sets is None else sets).take(torch.arange(length))
            for sets, length in zip(tokens.kept, lengths, strict=True)
        ]
    )


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
