"""What a model can do is found out once and goes with the model."""

from __future__ import annotations

import copy

import pytest
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


def test_arguments_that_are_handed_on_count() -> None:
    gpt, t5 = letter_gpt().model, letter_t5().model
    assert takes(gpt, "input_ids")
    assert not takes(gpt, "decoder_input_ids")
    assert takes(t5, "decoder_input_ids")
    assert not takes(gpt, "nothing_of_the_kind")
