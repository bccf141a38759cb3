"""Sampling continuations: each text is read once, then one token per step."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from rlgf.kept import KeptTokens
from rlgf.models.abilities import abilities, many_passes
from rlgf.models.decoding import DecodingBatch
from rlgf.models.forward import length_batches
from rlgf.models.sampling import Sampling, draw, sampling_logits

_LOOK_EVERY = 8
"""Steps on a GPU after which it is looked which rows have ended: each look waits for the device."""


@dataclass(frozen=True)
class Continuation:
    """The tokens that a model wrote after one prefix, the one that ended it included."""

    token_ids: Int[Tensor, "N"]
    logprobs: Float[Tensor, "N"]
    """Under the distribution they were drawn from."""
    finished: bool
    """Whether it ended in a token that ends a text."""
    kept: KeptTokens | None = None
    """What each token was drawn from, where that was asked for and something was cut off."""


@torch.no_grad()
def sample_continuations(
    model: PreTrainedModel,
    prefixes: Sequence[Int[Tensor, "_"]],
    max_new_tokens: Int[Tensor, "N"],
    uniforms: Float[Tensor, "N T"],
    sampling: Sampling,
    end_ids: Collection[int],
    *,
    prompts: Sequence[Int[Tensor, "_"]] | None = None,
    first_positions: Int[Tensor, "N"] | None = None,
    max_batch_tokens: int = 32_768,
    keep_sets: bool = False,
) -> list[Continuation]:
    """Continue each prefix until a token that ends the text or its own length limit.

    Args:
        prefixes: token ids, without padding; at least one token each. See `LanguageModel.prefixes`.
        max_new_tokens: the limit of each row, at least 1.
        uniforms: numbers in [0, 1); row i, column j decides token j of continuation i. The result
            depends on nothing else that is random, so it is the same for any batching.
        end_ids: the tokens that end a text, see `LanguageModel.end_ids`.
        prompts: what an encoder-decoder model's encoder reads; the prefixes are then its decoder's.
        first_positions: response position of each row's first token (default 0), for the
            minimum length.
        max_batch_tokens: rows times positions of one decoding batch.
        keep_sets: whether to return what top-k and top-p left of the vocabulary at each token.
    """
    lengths = torch.tensor([len(prefix) for prefix in prefixes])
    if first_positions is None:
        first_positions = torch.zeros_like(max_new_tokens)
    results: dict[int, Continuation] = {}
    for rows in decoding_batches(model, lengths, max_new_tokens, prompts, max_batch_tokens):
        chosen = rows.tolist()
        batch = DecodingBatch(
            model,
            [prefixes[i] for i in chosen],
            max_new_tokens[rows],
            None if prompts is None else [prompts[i] for i in chosen],
        )
        limits, first = max_new_tokens[rows], first_positions[rows]
        with many_passes(model):
            found = _run(batch, limits, first, uniforms[rows], sampling, end_ids, keep_sets=keep_sets)
        results |= dict(zip(chosen, found, strict=True))
    return [results[i] for i in range(len(prefixes))]


def decoding_batches(
    model: PreTrainedModel,
    lengths: Int[Tensor, "N"],
    max_new_tokens: Int[Tensor, "N"],
    prompts: Sequence[Tensor] | None,
    max_batch_tokens: int,
) -> Iterator[Int[Tensor, "_"]]:
    """Rows that are decoded together: of the same length where the model cannot read others together."""
    able = abilities(model)
    if prompts is None:
        left, right = lengths, max_new_tokens
    else:
        left, right = torch.tensor([len(prompt) for prompt in prompts]), lengths + max_new_tokens
    shape = torch.zeros(len(lengths), 2, dtype=torch.long)
    if not able.padding:
        shape[:, 0] = lengths
    if not able.prompt_padding:
        shape[:, 1] = left
    for value in shape.unique(dim=0):
        rows = (shape == value).all(dim=1).nonzero().squeeze(1)
        for batch in length_batches(left[rows], right[rows], max_batch_tokens):
            yield rows[batch]


@dataclass
class _Drawn:
    """What has been drawn of a batch so far, step by step, and for which of its first rows."""

    rows: list[Int[Tensor, "_"]]
    ids: list[Int[Tensor, "_"]]
    logprobs: list[Float[Tensor, "_"]]
    sets: list[KeptTokens]
    """What each token was drawn from; empty where that is not asked for."""

    def continuations(self, limits: Int[Tensor, "N"], end_ids: Collection[int]) -> list[Continuation]:
        """The tokens of each row up to its first end, or to its limit."""
        steps = torch.arange(len(self.ids)).repeat_interleave(torch.tensor([len(one) for one in self.ids]))
        rows, drawn, drawn_logprobs = (torch.cat(one).cpu() for one in (self.rows, self.ids, self.logprobs))
        ids = torch.zeros(len(limits), len(self.ids), dtype=torch.long)
        logprobs = torch.zeros(ids.shape)
        ids[rows, steps], logprobs[rows, steps] = drawn, drawn_logprobs
        ends = torch.isin(ids, torch.tensor(sorted(end_ids), dtype=torch.long))
        ends &= torch.arange(ids.shape[1]) < limits[:, None]
        finished = ends.any(dim=1)
        lengths = torch.where(finished, ends.int().argmax(dim=1) + 1, limits)
        sets: Sequence[KeptTokens | None] = [None] * len(limits)
        if self.sets:
            written = (steps < lengths[rows]).nonzero().squeeze(1)
            order = written[(rows * ids.shape[1] + steps)[written].argsort()]
            sets = KeptTokens.join(self.sets).take(order).split(lengths.tolist())
        return [
            Continuation(ids[row, :length], logprobs[row, :length], ended, kept)
            for row, (length, ended, kept) in enumerate(
                zip(lengths.tolist(), finished.tolist(), sets, strict=True)
            )
        ]


def _run(
    batch: DecodingBatch,
    limits: Int[Tensor, "N"],
    first_positions: Int[Tensor, "N"],
    uniforms: Float[Tensor, "N T"],
    sampling: Sampling,
    end_ids: Collection[int],
    *,
    keep_sets: bool,
) -> list[Continuation]:
    device = batch.device
    look_every = _LOOK_EVERY if device.type == "cuda" else 1
    keep_sets &= sampling.truncates
    drawn = _Drawn([], [], [], [])
    ends = torch.tensor(sorted(end_ids), dtype=torch.long, device=device)
    rows = torch.arange(len(limits), device=device)
    left, first, numbers = limits.to(device), first_positions.to(device), uniforms.to(device)
    alive = torch.ones(len(limits), dtype=torch.bool, device=device)
    earliest, longest = int(first_positions.min()), int(limits.max())
    for step in range(longest):
        # A minimum length that all rows are past need not be looked at for each of them.
        late = earliest + step >= sampling.min_tokens
        now = sampling.model_copy(update={"min_tokens": 0}) if late else sampling
        logits = sampling_logits(batch.next_logits(), first + step, now, ends)
        ids, logprobs = draw(logits, numbers[:, step])
        drawn.rows.append(rows)
        drawn.ids.append(ids)
        drawn.logprobs.append(logprobs)
        if keep_sets:
            drawn.sets.append(KeptTokens.of(logits.isfinite()))
        alive = alive & (step + 1 < left) & ~torch.isin(ids, ends)
        if step + 1 == longest:
            break
        batch.append(ids)
        if (step + 1) % look_every == 0:
            kept = _closed_up(alive.cpu(), batch.compact_below)
            if kept is not None:
                if not len(kept):
                    break
                kept = kept.to(device)
                batch.keep(kept)
                rows, left, first, numbers, alive = (one[kept] for one in (rows, left, first, numbers, alive))
    return drawn.continuations(limits, end_ids)


def _closed_up(alive: Bool[Tensor, "N"], below: float) -> Int[Tensor, "M"] | None:
    """Which row each place has once the last rows fill the places of those that have ended.

    Returns:
        None where the share of rows that go on is not below ``below``.
    """
    count = int(alive.sum())
    if count >= below * len(alive) and count:
        return None
    places = torch.arange(count)
    places[~alive[:count]] = alive[count:].nonzero().squeeze(1) + count
    return places
