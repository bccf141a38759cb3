"""A key-value cache that writes in place, and drops rows by moving few of them.

The cache of `transformers` concatenates, which copies everything kept so far for every new token:
28% of the decoding time of a small GPT at batch 112 on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from rlgf.models.abilities import takes


class ReservingLayer(DynamicLayer):
    """One layer's keys and values as views of tensors with room for those still to come."""

    def __init__(self, rows: int, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows, self.capacity = rows, capacity
        self.used = 0
        self._piece: tuple[Tensor, Tensor, slice] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            if self._piece is None:
                self.rows = len(key_states)
            self._keys = self._reserve(key_states)
            self._values = self._reserve(value_states)
        if self._piece is not None:
            rows, of, columns = self._piece
            self._keys[rows, :, columns] = key_states[of]
            self._values[rows, :, columns] = value_states[of]
            return key_states, value_states
        end = self.used + key_states.shape[2]
        self._keys[: self.rows, :, self.used : end] = key_states
        self._values[: self.rows, :, self.used : end] = value_states
        self.expose(end)
        return self.keys, self.values  # type: ignore[return-value]  # set by expose

    def get_seq_length(self) -> int:
        return self.used

    def fill(self, rows: Int[Tensor, "N"], of: Int[Tensor, "N"], columns: slice) -> None:
        """Let the next pass, over some of the texts alone, write its row ``of[i]`` into row ``rows[i]``."""
        self._piece = rows, of, columns

    def expose(self, used: int) -> None:
        """Show the first ``used`` columns of the rows."""
        self._piece, self.used = None, used
        if not self.is_initialized:  # some models keep nothing of some of their layers
            return
        self.keys = self._keys[: self.rows, :, :used]
        self.values = self._values[: self.rows, :, :used]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        if not self.is_initialized:
            return
        # Rows that stay where they are are not copied.
        places = torch.arange(len(beam_idx), device=beam_idx.device)
        moved = (beam_idx != places).nonzero().squeeze(1)
        if len(beam_idx) > len(self._keys):
            self._keys, self._values = (self._widened(one, beam_idx) for one in (self._keys, self._values))
        elif len(moved):
            for states in (self._keys, self._values):
                states[moved, :, : self.used] = states[beam_idx[moved], :, : self.used]
        self.rows = len(beam_idx)
        self.expose(self.used)

    def _widened(self, states: Tensor, rows: Tensor) -> Tensor:
        _, heads, capacity, width = states.shape
        wide = states.new_zeros(len(rows), heads, capacity, width)
        wide[:, :, : self.used] = states[rows, :, : self.used]
        return wide

    def _reserve(self, states: Tensor) -> Tensor:
        _, heads, _, width = states.shape
        # What stands in masked columns is multiplied by 0, and may not be NaN.
        return states.new_zeros(self.rows, heads, self.capacity, width)


def reserving_cache(model: PreTrainedModel, rows: int, capacity: int) -> DynamicCache | EncoderDecoderCache:
    """A cache for ``rows`` texts of ``capacity`` positions. Layers of a special kind (sliding windows) stay as they are."""
    config = model.config.get_text_config(decoder=True)
    cache = DynamicCache(config=config)
    count = getattr(config, "num_decoder_layers", None) or config.num_hidden_layers
    layers = cache.layers if len(cache.layers) == count else [DynamicLayer() for _ in range(count)]
    cache.layers = [
        ReservingLayer(rows, capacity) if type(layer) is DynamicLayer else layer for layer in layers
    ]
    cache.layer_class_to_replicate = None
    return EncoderDecoderCache(cache, DynamicCache()) if model.config.is_encoder_decoder else cache


def reserving_layers(cache: DynamicCache | EncoderDecoderCache | None) -> list[ReservingLayer]:
    """The layers of a cache if all of them reserve, so that texts can be read into it piece by piece; else none."""
    layers = cache.layers if isinstance(cache, DynamicCache) else []
    found = [layer for layer in layers if isinstance(layer, ReservingLayer)]
    return found if len(found) == len(layers) else []


def keeps_all(model: PreTrainedModel) -> bool:
    """Whether every layer keeps the keys and values of all tokens, and nothing else."""
    cache = reserving_cache(model, 1, 1)
    return bool(reserving_layers(cache))


def keep_rows(cache: DynamicCache | EncoderDecoderCache, rows: Tensor) -> None:
    """Drop all but the given rows, or repeat some.

    Every kind of layer, recurrent states included, can be reordered for a beam search, and only some can
    select; an order may leave rows out.
    """
    cache.reorder_cache(rows)  # type: ignore[arg-type]  # the stub asks for a LongTensor


def cache_argument(model: nn.Module) -> str | None:
    """What ``model.forward`` calls its cache, if it takes one: transformers 5.24 renamed the argument."""
    return next((name for name in ("cache", "past_key_values") if takes(model, name)), None)
