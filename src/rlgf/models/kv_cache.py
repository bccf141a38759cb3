"""A key-value cache that writes in place.

The cache of `transformers` concatenates, which copies everything kept so far for every new token:
28% of the decoding time of a small GPT at batch 112 on a CPU.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from rlgf.models.abilities import takes


class ReservingLayer(DynamicLayer):
    """One layer's keys and values as views of tensors with room for those still to come."""

    def __init__(self, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.capacity = capacity
        self.used = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._keys = self._reserve(key_states)
            self._values = self._reserve(value_states)
        end = self.used + key_states.shape[2]
        self._keys[:, :, self.used : end] = key_states
        self._values[:, :, self.used : end] = value_states
        self.used = end
        self._expose()
        return self.keys, self.values  # type: ignore[return-value]  # set by _expose

    def get_seq_length(self) -> int:
        return self.used

    def reorder_cache(self, beam_idx: Tensor) -> None:
        if self.is_initialized:
            self._keys, self._values = self._keys[beam_idx], self._values[beam_idx]
            self._expose()

    def _reserve(self, states: Tensor) -> Tensor:
        batch, heads, _, width = states.shape
        return states.new_empty(batch, heads, self.capacity, width)

    def _expose(self) -> None:
        self.keys = self._keys[:, :, : self.used]
        self.values = self._values[:, :, : self.used]


def reserving_cache(model: PreTrainedModel, capacity: int) -> DynamicCache | EncoderDecoderCache:
    """A cache for ``capacity`` positions. Layers of a special kind (sliding windows) stay as they are."""
    config = model.config.get_text_config(decoder=True)
    cache = DynamicCache(config=config)
    count = getattr(config, "num_decoder_layers", None) or config.num_hidden_layers
    layers = cache.layers if len(cache.layers) == count else [DynamicLayer() for _ in range(count)]
    cache.layers = [ReservingLayer(capacity) if type(layer) is DynamicLayer else layer for layer in layers]
    cache.layer_class_to_replicate = None
    return EncoderDecoderCache(cache, DynamicCache()) if model.config.is_encoder_decoder else cache


def keep_rows(cache: DynamicCache | EncoderDecoderCache, rows: Tensor) -> None:
    """Drop all but the given rows.

    Every kind of layer, recurrent states included, can be reordered for a beam search, and only some can
    select; an order may leave rows out.
    """
    cache.reorder_cache(rows)  # type: ignore[arg-type]  # the stub asks for a LongTensor


def cache_argument(model: nn.Module) -> str | None:
    """What ``model.forward`` calls its cache, if it takes one: transformers 5.24 renamed the argument."""
    return next((name for name in ("cache", "past_key_values") if takes(model, name)), None)
