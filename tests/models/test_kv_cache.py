"""Keys and values that are written in place are those that a plain cache concatenates."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from rlgf.models.kv_cache import (
    ReservingLayer,
    cache_argument,
    keep_rows,
    keeps_all,
    reserving_cache,
    reserving_layers,
)
from toys import letter_t5


def states(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    drawn = torch.randn(2, rows, 2, columns, 3, generator=torch.Generator().manual_seed(seed))
    return drawn[0], drawn[1]


def same(layer: ReservingLayer, plain: DynamicLayer) -> bool:
    return torch.equal(layer.keys, plain.keys) and torch.equal(layer.values, plain.values)


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0], [1], [2, 2, 0, 1, 1]])
def test_a_layer_keeps_what_a_plain_one_does_whichever_rows_go_on(rows: list[int]) -> None:
    layer, plain = ReservingLayer(3, 8), DynamicLayer()
    for seed, columns in enumerate((4, 1)):
        for one in (layer, plain):
            one.update(*states(3, columns, seed))
    assert layer.get_seq_length() == 5
    assert same(layer, plain)
    for one in (layer, plain):
        one.reorder_cache(torch.tensor(rows))
        one.update(*states(len(rows), 2, 9))
    assert same(layer, plain)
    assert layer.get_seq_length() == 7


def test_texts_can_be_read_into_it_piece_by_piece() -> None:
    layer, (keys, values) = ReservingLayer(3, 8), states(2, 4, 0)
    layer.fill(torch.tensor([2, 0]), torch.tensor([0, 1]), slice(1, 5))
    layer.update(keys, values)
    layer.expose(5)
    assert torch.equal(layer.keys[2, :, 1:], keys[0])
    assert torch.equal(layer.values[0, :, 1:], values[1])
    assert not layer.keys[1].any(), "what nobody wrote is 0, since masked columns may not be NaN"


def test_rows_that_are_dropped_leave_the_others_as_they_were(tiny_llama: PreTrainedModel) -> None:
    ids = torch.randint(1, 16, (4, 6), generator=torch.Generator().manual_seed(0))
    argument = cache_argument(tiny_llama)
    assert argument is not None
    with torch.no_grad():
        cache = reserving_cache(tiny_llama, 4, 10)
        tiny_llama(ids, **{argument: cache})
        keep_rows(cache, torch.tensor([3, 1]))
        after = tiny_llama(ids[[3, 1]][:, :1], **{argument: cache}).logits
        whole = tiny_llama(torch.cat([ids[[3, 1]], ids[[3, 1]][:, :1]], dim=1)).logits[:, -1:]
    torch.testing.assert_close(after, whole, atol=1e-4, rtol=1e-4)


def test_what_a_cache_keeps_is_known(tiny_llama: PreTrainedModel, tiny_mistral: PreTrainedModel) -> None:
    assert keeps_all(tiny_llama)
    assert not keeps_all(tiny_mistral), "a window forgets"
    assert len(reserving_layers(reserving_cache(tiny_llama, 1, 4))) == 2
    assert reserving_layers(reserving_cache(tiny_mistral, 1, 4)) == []
    assert reserving_layers(None) == reserving_layers(DynamicCache()) == []
    assert reserving_layers(reserving_cache(letter_t5().model, 1, 4)) == [], "an encoder's is another kind"
