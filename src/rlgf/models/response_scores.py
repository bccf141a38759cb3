"""Log-probabilities and entropies of responses, with the vocabulary in pieces where it is large.

Logits of a whole micro-batch are the largest tensor of an update: 16,384 tokens over a vocabulary of 49,152 take
3.2 GB, and the softmax and its gradient as much again. In pieces of some hundred tokens they take a hundred MB, for
one more product with the head in the backward pass.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from rlgf.kept import KeptTokens
from rlgf.models.abilities import abilities
from rlgf.models.encoder_decoder import decoder_start
from rlgf.models.forward import Tokens, base_hidden, response_outputs, trunk_of
from rlgf.models.precision import mixed_precision
from rlgf.models.sampling import Sampling, entropy, token_logprobs
from rlgf.models.vocabulary import read_logits

MOST_LOGITS = 2**25
"""How many logits may be there at once where a gradient is wanted; more are computed in pieces, twice."""
MOST_PIECE = 2**23
"""How many a piece has. Without a gradient pieces cost nothing, so there are never more."""


@dataclass(frozen=True)
class ResponseScores:
    """What a model says of response tokens, with gradients; at padding the numbers mean nothing, and what was not
    asked for is None."""

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
    pieces = _Pieces(model, tokens, sampling, end_ids, with_entropy)
    logprobs, entropies = pieces.scores(states, max(1, MOST_PIECE // width))
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


class _Pieces:
    """The response tokens of a batch, one after another and without padding."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokens: Tokens,
        sampling: Sampling,
        end_ids: Collection[int],
        with_entropy: bool,
    ) -> None:
        self.model, self.sampling, self.end_ids = model, sampling, end_ids
        self.with_entropy = with_entropy
        self.mask: Bool[Tensor, "B T"] = tokens.response_mask
        self.ids = tokens.response_ids[self.mask]
        self.positions: Int[Tensor, "N"] = self.mask.nonzero()[:, 1]
        self.given = None if tokens.given is None else tokens.given[self.mask]
        self.kept = _one_after_another(tokens)

    def scores(
        self, hidden: Float[Tensor, "B T D"], size: int
    ) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"] | None]:
        states = hidden[self.mask]
        found = []
        for begin in range(0, len(states), size):
            piece = torch.arange(begin, min(begin + size, len(states)), device=states.device)
            if torch.is_grad_enabled():
                found.append(checkpoint(self._score, states[piece], piece, use_reentrant=False))
            else:
                found.append(self._score(states[piece], piece))
        logprobs, entropies = zip(*found, strict=True)
        return self._spread(logprobs), self._spread(entropies) if self.with_entropy else None

    def _score(self, states: Float[Tensor, "N D"], piece: Int[Tensor, "N"]) -> tuple[Tensor, Tensor]:
        head = self.model.get_output_embeddings()
        assert head is not None, "a model with a plain head has one"
        with mixed_precision(states.device):
            logits = read_logits(self.model, head(states))[None]
        kept = None
        if self.kept is not None:
            kept = self.kept.take(piece.cpu()).mask(len(piece), logits.shape[-1]).to(states.device)[None]
        positions = self.positions[piece][None]
        given = None if self.given is None else self.given[piece][None]
        logprobs = token_logprobs(
            logits, self.ids[piece][None], self.sampling, self.end_ids, kept, given, positions
        )
        if not self.with_entropy:
            return logprobs[0], logprobs[0]
        return logprobs[0], entropy(logits, self.sampling, self.end_ids, kept, positions)[0]

    def _spread(self, parts: tuple[Tensor, ...]) -> Float[Tensor, "B T"]:
        values = torch.cat(parts)
        return values.new_zeros(self.mask.shape).masked_scatter(self.mask, values)


def _one_after_another(tokens: Tokens) -> KeptTokens | None:
    """The kept sets of all response tokens, in the order of a mask's true entries."""
    there = next((sets for sets in tokens.kept if sets is not None), None)
    if there is None:
        return None
    lengths = tokens.response_mask.sum(dim=1).tolist()
    nothing = KeptTokens(there.vocabulary, torch.zeros(max(lengths), dtype=torch.long), there.words[:0])
    return KeptTokens.join(
        [
            (nothing if sets is None else sets).take(torch.arange(length))
            for sets, length in zip(tokens.kept, lengths, strict=True)
        ]
    )
