"""Sampling continuations from a causal model: one prefill, then one token per step."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from rlgf.kept import KeptTokens
from rlgf.models.abilities import abilities, takes
from rlgf.models.batching import length_batches
from rlgf.models.encoder_decoder import encode, encoded_inputs
from rlgf.models.forward import mixed_precision
from rlgf.models.kv_cache import cache_argument, keep_rows, reserving_cache
from rlgf.models.sampling import Sampling, draw, sampling_logits
from rlgf.models.vocabulary import read_logits
from rlgf.types import pad

# Selecting rows copies the cache, so it waits until a quarter of them has ended.
_COMPACT_BELOW = 0.75


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
    use_cache: bool = True,
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
        use_cache: False runs the whole text at every step; slow, kept to check the cache against.
        keep_sets: whether to return what top-k and top-p left of the vocabulary at each token.
    """
    lengths = torch.tensor([len(prefix) for prefix in prefixes])
    if first_positions is None:
        first_positions = torch.zeros_like(max_new_tokens)
    results: list[Continuation | None] = [None] * len(prefixes)
    for rows in _batches(model, lengths, max_new_tokens, prompts, max_batch_tokens):
        chosen = rows.tolist()
        encoded = None if prompts is None else encode(model, [prompts[i] for i in chosen])
        batch = _Batch(model, [prefixes[i] for i in chosen], max_new_tokens[rows], encoded, use_cache)
        _run(batch, rows, max_new_tokens, first_positions, uniforms, sampling, end_ids, keep_sets, results)
    return [result for result in results if result is not None]


def _batches(
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


class _Batch:
    """Rows being decoded together: their text so far, its mask and positions, and the cache."""

    def __init__(
        self,
        model: PreTrainedModel,
        prefixes: Sequence[Tensor],
        limits: Int[Tensor, "N"],
        encoded: tuple[Float[Tensor, "N P D"], Bool[Tensor, "N P"]] | None,
        use_cache: bool,
    ) -> None:
        self.model = model
        self.encoded = encoded
        """The prompts' encoder states and their mask, where the model has an encoder."""
        self.ids = pad(prefixes, 0, left=True).to(model.device)
        self.mask = pad([torch.ones_like(p) for p in prefixes], 0, left=True).to(model.device)
        able = abilities(model)
        first = able.first_position or 0
        self.positions = (self.mask.cumsum(dim=1) - 1).clamp(min=0) + first
        # A row that has ended stays until rows are dropped; its position must stay in the context.
        self.last_position = self.mask.sum(dim=1) + limits.to(model.device) - 1 + first
        # The last sampled token is never fed back.
        capacity = self.ids.shape[1] + int(limits.max()) - 1
        name = cache_argument(model)
        self.cache = (
            reserving_cache(model, capacity) if use_cache and able.cache and name is not None else None
        )
        self.cache_inputs: dict[str, Any] = {} if name is None else {name: self.cache}
        if takes(model, "use_cache"):
            self.cache_inputs["use_cache"] = self.cache is not None
        self.gives_positions = able.first_position is not None
        self.step_mask = able.step_mask
        self.fed = 0

    def next_logits(self) -> Float[Tensor, "N V"]:
        new = slice(self.fed, None)
        with mixed_precision(self.model.device):
            output = self.model(**self._inputs(self.ids[:, new], self.positions[:, new]), **self.cache_inputs)
        if self.cache is not None:
            self.fed = self.ids.shape[1]
        return read_logits(self.model, output.logits[:, -1])

    def _inputs(self, ids: Int[Tensor, "N W"], positions: Int[Tensor, "N W"]) -> dict[str, Any]:
        """Arguments of a forward pass over new tokens, without the cache."""
        if self.encoded is None:
            inputs = {"input_ids": ids, "logits_to_keep": 1}
            if self.step_mask or not self.fed:
                inputs["attention_mask"] = self.mask
            if self.gives_positions:
                inputs["position_ids"] = positions
            return {name: value for name, value in inputs.items() if takes(self.model, name)}
        given = {"decoder_position_ids": positions} if self.gives_positions else {}
        return {
            **encoded_inputs(*self.encoded),
            "decoder_input_ids": ids,
            "decoder_attention_mask": self.mask,
            **given,
        }

    def append(self, ids: Int[Tensor, "N"]) -> None:
        fresh = ids[:, None]
        position = torch.minimum(self.positions[:, -1] + 1, self.last_position)
        self.ids = torch.cat([self.ids, fresh], dim=1)
        self.mask = torch.cat([self.mask, torch.ones_like(fresh)], dim=1)
        self.positions = torch.cat([self.positions, position[:, None]], dim=1)

    def keep(self, rows: Int[Tensor, "M"]) -> None:
        for name in ("ids", "mask", "positions", "last_position"):
            setattr(self, name, getattr(self, name)[rows])
        if self.encoded is not None:
            states, mask = self.encoded
            self.encoded = states[rows], mask[rows]
        if self.cache is not None:
            keep_rows(self.cache, rows)


@dataclass
class _Written:
    """What has been drawn of one continuation so far."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    sets: list[KeptTokens] = field(default_factory=list)
    """What each token was drawn from; empty where that is not asked for."""

    def ended(self, end_ids: Collection[int]) -> Continuation:
        return Continuation(
            torch.tensor(self.ids),
            torch.tensor(self.logprobs),
            self.ids[-1] in end_ids,
            KeptTokens.join(self.sets) if self.sets else None,
        )


def _run(
    batch: _Batch,
    rows: Int[Tensor, "N"],
    max_new_tokens: Tensor,
    first_positions: Tensor,
    uniforms: Tensor,
    sampling: Sampling,
    end_ids: Collection[int],
    keep_sets: bool,
    results: list[Continuation | None],
) -> None:
    """Decode one batch. ``rows`` names the rows still in it by their place in the call."""
    written = [_Written() for _ in results]
    keep_sets &= sampling.truncates
    active = torch.ones(len(rows), dtype=torch.bool)
    ends = torch.tensor(sorted(end_ids), dtype=torch.long, device=batch.ids.device)
    step = 0
    while True:
        positions = (first_positions[rows] + step).to(batch.ids.device)
        logits = sampling_logits(batch.next_logits(), positions, sampling, end_ids)
        drawn, drawn_logprobs = draw(logits, uniforms[rows, step].to(logits.device))
        if keep_sets:
            drawn_from = KeptTokens.of(logits[active.to(logits.device)].isfinite()).rows()
            for row, one in zip(rows[active].tolist(), drawn_from, strict=True):
                written[row].sets.append(one)
        ended = step + 1 >= max_new_tokens[rows]
        if end_ids:
            ended |= torch.isin(drawn, ends).cpu()
        for row, alive, done, token, logprob in zip(
            rows.tolist(),
            active.tolist(),
            ended.tolist(),
            drawn.tolist(),
            drawn_logprobs.tolist(),
            strict=True,
        ):
            if not alive:
                continue
            written[row].ids.append(token)
            written[row].logprobs.append(logprob)
            if done:
                results[row] = written[row].ended(end_ids)
        active &= ~ended
        step += 1
        if not active.any():
            return
        batch.append(drawn)
        if active.float().mean() < _COMPACT_BELOW:
            kept = active.nonzero().squeeze(1)
            batch.keep(kept.to(batch.ids.device))
            rows, active = rows[kept], active[kept]
