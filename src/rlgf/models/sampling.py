"""The distribution that tokens are drawn from, defined once for sampling and for training.

Top-k and top-p look at the logits of the moment, so which tokens they keep changes as a model trains. They
are applied when a token is drawn; whoever scores it later applies the set that was kept then.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from rlgf.strict import Strict


class Sampling(Strict):
    """How a model's logits become the distribution that is sampled.

    Applied in this order: no end of text before ``min_tokens``, temperature, top-k, top-p.
    """

    temperature: float = Field(default=1.0, ge=0.01, allow_inf_nan=False)
    top_k: int | None = Field(default=None, ge=1)
    """Keep the k most probable tokens, and their equals."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Keep the most probable tokens whose probability sums to at least p (arXiv 1904.09751), and their equals."""
    min_tokens: int = Field(default=0, ge=0)
    """Response positions below this one cannot hold a token that ends the text."""

    @property
    def truncates(self) -> bool:
        """Whether some tokens get probability 0 depending on the logits themselves."""
        return self.top_k is not None or self.top_p < 1

    @property
    def untruncated(self) -> Sampling:
        """The same without top-k and top-p."""
        return self.model_copy(update={"top_k": None, "top_p": 1.0})


def sampling_logits(
    logits: Float[Tensor, "*batch V"],
    positions: Int[Tensor, "*batch"],
    sampling: Sampling,
    end_ids: Collection[int] | Int[Tensor, "E"],
) -> Float[Tensor, "*batch V"]:
    """Unnormalized log-probabilities of the sampled distribution.

    Args:
        logits: a model's raw output.
        positions: response position of each token, which the minimum length looks at.
        end_ids: the tokens that end a text, none where the model has none; as a tensor where the logits are.
    """
    # One precision for sampling and scoring, whatever the model's.
    logits = logits.float()
    if sampling.min_tokens and len(end_ids):
        ends = end_ids if isinstance(end_ids, Tensor) else torch.tensor(list(end_ids), device=logits.device)
        # Without a look at the positions, for which the CPU would wait.
        too_early = (positions < sampling.min_tokens).unsqueeze(-1)
        ending = logits.index_select(-1, ends).masked_fill(too_early, float("-inf"))
        logits = logits.index_copy(-1, ends, ending)
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        smallest = logits.topk(sampling.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < smallest, float("-inf"))
    if sampling.top_p < 1:
        probabilities = logits.softmax(dim=-1)
        smallest = _least_of_nucleus(probabilities, sampling.top_p)
        logits = logits.masked_fill(probabilities < smallest, float("-inf"))
    return logits


def _least_of_nucleus(probabilities: Float[Tensor, "*batch V"], top_p: float) -> Float[Tensor, "*batch 1"]:
    """The smallest probability among the most probable tokens that together reach ``top_p``.

    A nucleus is small, and finding a few hundred largest costs a fraction of sorting a vocabulary.
    """
    size = min(256, probabilities.shape[-1])
    while True:
        largest = probabilities.topk(size, dim=-1).values
        cumulative = largest.cumsum(dim=-1)
        if size == probabilities.shape[-1] or bool((cumulative[..., -1] >= top_p).all()):
            break
        size = min(4 * size, probabilities.shape[-1])
    outside = cumulative - largest >= top_p
    return largest.masked_fill(outside, float("inf")).amin(dim=-1, keepdim=True)


def draw(
    logits: Float[Tensor, "N V"], uniforms: Float[Tensor, "N"]
) -> tuple[Int[Tensor, "N"], Float[Tensor, "N"]]:
    """One token per row by inverting the cumulative distribution, with its log-probability.

    One given uniform number decides a row's token, whatever else is in the batch: results do not
    depend on batching, and no random number is drawn for every entry of the vocabulary.
    """
    largest = logits.amax(dim=-1, keepdim=True)
    # The exponentials are taken once and in place: a vocabulary is the largest thing that a step holds.
    weights = (logits - largest).exp_()
    total = largest + weights.sum(dim=-1, keepdim=True).log()
    cumulative = weights.cumsum_(dim=-1)
    # Scaling by the last keeps rounding from pushing a draw after the last possible token.
    threshold = uniforms[:, None] * cumulative[:, -1:]
    ids = torch.searchsorted(cumulative, threshold, right=True).clamp(max=logits.shape[-1] - 1)
    if logits.device.type != "cpu":
        ids = possible(ids, logits)
    return ids.squeeze(-1), (logits.gather(-1, ids) - total).squeeze(-1)


def possible(ids: Int[Tensor, "N 1"], logits: Float[Tensor, "N V"]) -> Int[Tensor, "N 1"]:
    """Tokens that were drawn, and the most probable one in the place of any that has no probability.

    A GPU adds up each entry of a cumulative sum in an order of its own, so that one may exceed the entry before it by
    rounding alone.
    """
    likeliest = logits.argmax(dim=-1, keepdim=True)
    gap = logits.gather(-1, ids) - logits.gather(-1, likeliest)
    return torch.where(gap.exp() > 0, ids, likeliest)


def token_logprobs(
    logits: Float[Tensor, "B T V"],
    ids: Int[Tensor, "B T"],
    sampling: Sampling,
    end_ids: Collection[int],
    kept: Bool[Tensor, "B T V"] | None = None,
    given: Bool[Tensor, "B T"] | None = None,
    positions: Int[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B T"]:
    """Log-probabilities of tokens under the distribution that they were drawn from.

    ``log p(y_t) = z_t[y_t] - log sum over kept v of exp z_t[v]``, with z the logits after temperature and
    minimum length. Under the weights of the moment of drawing this is what `draw` said; under other weights it
    is never undefined, since a drawn token is in its own set.

    Args:
        kept: what top-k and top-p left when each token was drawn, see `rlgf.kept`; None where they cut nothing.
        given: tokens that somebody else wrote, whose text may end before the minimum length: there the minimum
            does not count.
        positions: of each token in its response; default: its column.
    """
    warped = _warp_sequence(logits, sampling, end_ids, kept, given, positions)
    chosen = warped.gather(-1, ids[..., None]).squeeze(-1)
    return chosen - warped.logsumexp(dim=-1)


def log_distribution(
    logits: Float[Tensor, "B T V"],
    sampling: Sampling,
    end_ids: Collection[int],
    kept: Bool[Tensor, "B T V"] | None = None,
    positions: Int[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B T V"]:
    """Log-probabilities at each position, -inf where none can be drawn; ``kept`` and ``positions`` as for
    `token_logprobs`."""
    return _warp_sequence(logits, sampling, end_ids, kept, None, positions).log_softmax(dim=-1)


def entropy(
    logits: Float[Tensor, "B T V"],
    sampling: Sampling,
    end_ids: Collection[int],
    kept: Bool[Tensor, "B T V"] | None = None,
    positions: Int[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B T"]:
    """Entropy of the sampled distribution in nats, at each position; ``kept`` and ``positions`` as for
    `token_logprobs`."""
    logprobs = log_distribution(logits, sampling, end_ids, kept, positions)
    # A token that cannot be drawn adds nothing; 0 * -inf would be NaN, in the gradient too.
    return -(logprobs.exp() * logprobs.clamp(min=torch.finfo(logprobs.dtype).min)).sum(dim=-1)


def one_end(
    logprobs: Float[Tensor, "B T V"], ends: Collection[int], end_id: int, others: Collection[int] = ()
) -> Float[Tensor, "B T V"]:
    """Log-probabilities with that of ending, by whichever token, at ``end_id`` alone.

    So two authors can be compared that end their texts in different tokens.

    Args:
        ends: what ends this author's texts, ``end_id`` or not.
        others: tokens to leave out of the comparison, whose probability is then missing.
    """
    if set(ends) == {end_id} and not others:
        return logprobs
    ending = logprobs[..., list(ends)].logsumexp(dim=-1, keepdim=True)
    column = torch.arange(logprobs.shape[-1], device=logprobs.device)
    left_out = torch.isin(column, torch.tensor([*ends, *others], device=logprobs.device))
    return torch.where(column == end_id, ending, logprobs.masked_fill(left_out, float("-inf")))


def _warp_sequence(
    logits: Float[Tensor, "B T V"],
    sampling: Sampling,
    end_ids: Collection[int],
    kept: Bool[Tensor, "B T V"] | None,
    given: Bool[Tensor, "B T"] | None = None,
    positions: Int[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B T V"]:
    if positions is None:
        positions = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[:2])
    if given is not None:
        positions = positions.masked_fill(given, sampling.min_tokens)
    warped = sampling_logits(logits, positions, sampling.untruncated, end_ids)
    return warped if kept is None else warped.masked_fill(~kept, float("-inf"))
