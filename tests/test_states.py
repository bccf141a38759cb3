"""States of what a run trains, told apart by their bits."""

from __future__ import annotations

import torch

from rlgf.states import copied, digest, read_back


def test_states_are_compared_by_their_bits() -> None:
    one = {"a": torch.tensor([1.0, 2.0]), "b": [1, "text", None, (2.5,)]}
    assert digest(one) == digest(copied(one)) == digest(read_back(one))
    for other in (
        {**one, "a": torch.tensor([1.0, 2.0000002])},
        {**one, "a": torch.tensor([[1.0, 2.0]])},
        {**one, "a": torch.tensor([1.0, 2.0], dtype=torch.float64)},
        {**one, "b": [1, "text", None, (2.5, 1)]},
    ):
        assert digest(other) != digest(one)
