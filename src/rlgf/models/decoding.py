"""Texts that are decoded together: what has been written of each, and the cache of what a model has read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel

from rlgf.models.abilities import abilities, lean, mixed_precision, takes
from rlgf.models.encoder_decoder import encode, encoded_inputs
from rlgf.models.kv_cache import cache_argument, keep_rows, reserving_cache, reserving_layers
from rlgf.models.vocabulary import read_logits
from rlgf.types import pad

_PADDING = 0.05
"""The share of padding from which on texts of unequal length are read apart."""
_MOST_PIECES = 12


class DecodingBatch:
    def __init__(
        self,
        model: PreTrainedModel,
        prefixes: Sequence[Int[Tensor, "_"]],
        limits: Int[Tensor, "N"],
        prompts: Sequence[Int[Tensor, "_"]] | None,
    ) -> None:
        """
        Args:
            prefixes: on the CPU, without padding.
            limits: how many tokens each row may get.
            prompts: what an encoder-decoder model's encoder reads.
        """
        self.model, self.device = model, model.device
        able = abilities(model)
        self.cache_name = cache_argument(model) if able.cache else None
        self.cache: DynamicCache | EncoderDecoderCache | None = None
        self.step_mask = able.step_mask
        self.first_position = able.first_position
        every = torch.arange(len(prefixes))
        self.unique, self.of = (every, every) if self.cache_name is None else _unique(prefixes, prompts)
        """Rows of which no two read the same, and which of them each row reads the same as."""
        self.encoded: tuple[Tensor, Tensor] | None = None
        """The prompts' encoder states and their mask, where the model has an encoder."""
        if prompts is not None:
            with mixed_precision(self.device):
                self.encoded = encode(model, [prompts[i] for i in self.unique.tolist()])
        lengths = torch.tensor([len(prefix) for prefix in prefixes])
        self.length = int(lengths.max())
        """Columns so far."""
        # The last token that is drawn is never fed back.
        capacity = self.length + int(limits.max()) - 1
        self.ids = torch.zeros(len(prefixes), capacity, dtype=torch.long, device=self.device)
        self.ids[:, : self.length] = pad(prefixes, 0, left=True).to(self.device)
        self.start = (self.length - lengths).to(self.device)
        """The column in which each row's text begins."""
        # A row that has ended stays until rows are dropped; its position must stay in the context.
        self.last_position = (lengths + limits - 1).to(self.device)

    @property
    def compact_below(self) -> float:
        """The share of rows going on below which dropping the others pays: some caches are copied for it."""
        return 0.95 if self.cache is None or reserving_layers(self.cache) else 0.75

    def next_logits(self) -> Float[Tensor, "N V"]:
        """Of the token after each row."""
        if self.cache_name is not None and self.cache is None:
            return self._read_prefixes()
        first = 0 if self.cache is None else self.length - 1
        return self._pass(slice(first, self.length), 0)

    def append(self, ids: Int[Tensor, "N"]) -> None:
        self.ids[:, self.length] = ids
        self.length += 1

    def keep(self, rows: Int[Tensor, "M"]) -> None:
        """Drop all but the given rows, which then stand in that order."""
        self.ids, self.start, self.last_position = (
            one[rows] for one in (self.ids, self.start, self.last_position)
        )
        self._keep_read(rows)

    def _keep_read(self, rows: Int[Tensor, "M"]) -> None:
        if self.encoded is not None:
            states, mask = self.encoded
            self.encoded = states[rows], mask[rows]
        if self.cache is not None:
            keep_rows(self.cache, rows)

    def _read_prefixes(self) -> Float[Tensor, "N V"]:
        """Read each different text once, in pieces of like length where the cache takes pieces."""
        rows, capacity = len(self.ids), self.ids.shape[1]
        self.cache = reserving_cache(self.model, rows, capacity)
        layers = reserving_layers(self.cache)
        of = self.of.to(self.device)
        if not layers:
            logits = self._pass(slice(0, self.length), 0, self.unique.to(self.device))
            if len(self.unique) < rows:
                self._keep_read(of)
            return logits[of]
        found: list[tuple[Tensor, Tensor]] = []
        for piece in _pieces((self.length - self.start.cpu())[self.unique]):
            into, source = (of[:, None] == piece.to(self.device)).nonzero(as_tuple=True)
            chosen = self.unique[piece].to(self.device)
            first = int(self.start[chosen].min())
            for layer in layers:
                layer.fill(into, source, slice(first, self.length))
            found.append((into, self._pass(slice(first, self.length), first, chosen)[source]))
        for layer in layers:
            layer.expose(self.length)
        order = torch.cat([into for into, _ in found]).argsort()
        return torch.cat([logits for _, logits in found])[order]

    def _pass(self, columns: slice, first: int, rows: Int[Tensor, "M"] | None = None) -> Float[Tensor, "M V"]:
        """Run the model over new columns.

        Args:
            first: the first column that it sees; those before it are padding in all rows.
            rows: the rows that are run; default: all.
        """
        ids, start, last = (
            one if rows is None else one[rows] for one in (self.ids, self.start, self.last_position)
        )
        numbers = torch.arange(first, self.length, device=self.device)
        mask = (numbers >= start[:, None]).long()
        new = numbers[columns.start - first :]
        inputs: dict[str, Any] = {"attention_mask": mask} if self.step_mask or columns.start == first else {}
        inputs["input_ids"] = ids[:, columns]
        if self.first_position is not None:
            positions = (new - start[:, None]).clamp(min=0).minimum(last[:, None])
            inputs["position_ids"] = positions + self.first_position
        if self.encoded is not None:
            inputs = {f"decoder_{name}": value for name, value in inputs.items()}
            inputs |= encoded_inputs(*self.encoded)
        else:
            inputs = {"logits_to_keep": 1, **inputs}
            inputs = {name: value for name, value in inputs.items() if takes(self.model, name)}
        name = self.cache_name
        inputs |= lean(self.model, use_cache=name is not None)
        with mixed_precision(self.device):
            output = self.model(**inputs, **({} if name is None else {name: self.cache}))
        return read_logits(self.model, output.logits[:, -1])


def _unique(
    prefixes: Sequence[Tensor], prompts: Sequence[Tensor] | None
) -> tuple[Int[Tensor, "U"], Int[Tensor, "N"]]:
    """The first of the rows that read the same, and for each row which of those it reads the same as."""
    numbers: dict[Any, int] = {}
    unique, of = [], []
    for row, prefix in enumerate(prefixes):
        key = tuple(prefix.tolist()), () if prompts is None else tuple(prompts[row].tolist())
        if key not in numbers:
            numbers[key] = len(numbers)
            unique.append(row)
        of.append(numbers[key])
    return torch.tensor(unique), torch.tensor(of)


def _pieces(lengths: Int[Tensor, "N"]) -> Iterator[Int[Tensor, "_"]]:
    """Rows of like length, the longest first."""
    order = lengths.argsort(descending=True, stable=True)
    least = int(lengths.sum()) / _MOST_PIECES
    begin, tokens = 0, 0
    for place, length in enumerate(lengths[order].tolist()):
        columns = (place + 1 - begin) * int(lengths[order[begin]])
        if tokens >= least and tokens + length < (1 - _PADDING) * columns:
            yield order[begin:place]
            begin, tokens = place, 0
        tokens += length
    yield order[begin:]
