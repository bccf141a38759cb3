"""The records that pass between the parts of the library."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from rlgf import Author, Completion, Experience, Message, Rollout, Sample
from rlgf.types import Scored, pad, padded, take
from toys import written


def test_masks_and_lengths_come_from_who_wrote_each_token() -> None:
    rollout = written("cd", "", authors="gpp")
    assert rollout.response_ids.tolist() == [[2, 3, 4], [4, 4, 4]], "the end of text also pads"
    assert rollout.response_mask.tolist() == [[True, True, True], [True, False, False]]
    assert rollout.lengths.tolist() == [3, 1]
    assert rollout.written_by(Author.GUIDE).tolist() == [[True, False, False], [True, False, False]]


def test_a_column_that_a_sample_lacks_is_none() -> None:
    one = Sample("a", messages=(Message("user", "a"),))
    rollout = replace(written("c", "d"), samples=(one, Sample("b", ("x",), {"n": 1})))
    assert rollout.columns == {"n": [None, 1]}
    assert rollout.prompts == ["a", "b"]
    assert rollout.references == [(), ("x",)]
    assert rollout.messages == [(Message("user", "a"),), ()]


def test_rows_are_taken_of_every_field() -> None:
    scored = Scored(written("c", "dd", "a"), torch.arange(3.0), {"t": torch.arange(3.0)})
    some = take(scored, torch.tensor([2, 0]))
    assert isinstance(some.rollout, Rollout)
    assert some.rollout.texts == ("a", "c")
    assert some.rollout.lengths.tolist() == [2, 2]
    assert some.rewards is not None
    assert some.rewards.tolist() == some.reward_terms["t"].tolist() == [2, 0]
    assert len(some) == 2


def test_pairs_stay_together() -> None:
    pairs = torch.tensor([[0, 3], [2, 1]])
    experience = Experience(
        Scored(written("a", "b", "c", "d")), pairs=pairs, difference=torch.tensor([1.0, 2.0])
    )
    some = experience.take_units(torch.tensor([1]))
    assert some.rollout.texts == ("c", "b")
    assert some.units.tolist() == [[0, 1]]
    assert some.difference is not None
    assert some.difference.tolist() == [2.0]
    alone = replace(experience, pairs=None, difference=None).take_units(torch.tensor([3, 0]))
    assert alone.rollout.texts == ("d", "a")


def test_padding_goes_to_the_side_that_is_asked_for() -> None:
    rows = [torch.tensor([1, 2]), torch.tensor([3])]
    assert pad(rows, 0).tolist() == [[1, 2], [3, 0]]
    assert pad(rows, 9, left=True).tolist() == [[1, 2], [9, 3]]


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (Message("user", "a"), "content"),
        (Sample("a"), "prompt"),
        (Completion("a", finished=True), "text"),
        (written("a"), "texts"),
        (Scored(written("a")), "rewards"),
        (Experience(Scored(written("a"))), "advantages"),
    ],
    ids=lambda given: given if isinstance(given, str) else type(given).__name__,
)
def test_records_cannot_be_changed(record: object, field: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(record, field, None)


def test_padded_ids_come_with_where_they_stand() -> None:
    ids, there = padded([[1, 2], torch.tensor([3]), []], 9, left=True)
    assert ids.tolist() == [[1, 2], [9, 3], [9, 9]]
    assert there.tolist() == [[True, True], [False, True], [False, False]]
