"""A key-value cache that writes in place.

The cache of `transformers` concatenates, which copies everything kept so far for every new token:
28% of the decoding time of a small GPT at batch 112 on a CPU.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer


class ReservingLayer(DynamicLayer):
    """One layer's keys and values as views of tensors with room for what is still to come."""

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

    def batch_select_indices(self, indices: Tensor) -> None:
        self._keys, self._values = self._keys[indices], self._values[indices]
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


def cache_argument(model: nn.Module) -> str:
    """What ``model.forward`` calls its cache: transformers 5.24 renamed the argument."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
