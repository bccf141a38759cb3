"""What a model can do is found out once and goes with the model."""

from __future__ import annotations

import copy

import pytest
from torch import nn
from transformers import PreTrainedModel

import rlgf.models.abilities as module
from rlgf.models.abilities import Abilities, abilities, declare, takes
from toys import letter_gpt, letter_t5


def test_it_is_tried_once_and_goes_with_copies_and_the_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    model = letter_gpt().model
    asked: list[PreTrainedModel] = []

    def trial(model: PreTrainedModel) -> Abilities:
        asked.append(model)
        declare(model, Abilities(cache=False))
        return Abilities(cache=False)

    monkeypatch.setattr(module, "_trial", [trial])
    assert not abilities(model).cache
    assert not abilities(copy.deepcopy(model)).cache
    assert not abilities(model.base_model).cache
    assert asked == [model]
    declare(model, None)
    abilities(model)
    assert len(asked) == 2, "nothing is known of it any more"


class Trunk(nn.Module):
    def forward(self, ids: object, mask: object = None) -> None: ...


class Head(nn.Module):
    """Hands on what it does not know itself."""

    def __init__(self) -> None:
        super().__init__()
        self.base_model = Trunk()

    def forward(self, ids: object, labels: object = None, **others: object) -> None: ...


class StrictHead(Head):
    def forward(self, ids: object, labels: object = None) -> None: ...


def test_arguments_that_are_handed_on_count() -> None:
    assert takes(Head(), "labels")
    assert takes(Head(), "mask")
    assert not takes(Head(), "others")
    assert not takes(StrictHead(), "mask")
    assert takes(letter_t5().model, "decoder_input_ids")
    assert not takes(letter_gpt().model, "decoder_input_ids")
