"""Weights of tokens against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlgf.objectives.losses import finished, top_entropy, uncertainty


@given(
    rows=st.lists(st.lists(st.floats(0, 3), min_size=1, max_size=12), min_size=1, max_size=4),
    share=st.floats(0.01, 1),
)
def test_the_share_of_highest_entropy_is_taken_of_each_text(rows: list[list[float]], share: float) -> None:
    longest = max(len(row) for row in rows)
    entropy = torch.tensor([row + [9.0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[t < len(row) for t in range(longest)] for row in rows])
    weights = top_entropy(entropy, mask, share)
    for number, row in enumerate(rows):
        values = entropy[number, : len(row)].tolist()
        ranked = sorted(range(len(row)), key=lambda t: (-values[t], t))
        chosen = set(ranked[: math.ceil(share * len(row) - 1e-6)])
        assert weights[number].tolist() == [float(t in chosen) for t in range(longest)]


def test_a_text_of_which_nothing_is_read_has_no_weights() -> None:
    assert not top_entropy(torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)).any()


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_uncertainty_is_the_variance_of_drawing_the_token(p: float) -> None:
    found = uncertainty(torch.tensor([[p]]).log())
    assert found.item() == pytest.approx(p * (1 - p), abs=1e-7)


def test_of_a_text_that_was_cut_off_nothing_is_learned() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    assert finished(torch.tensor([False, True]), mask).tolist() == [[0.0, 0.0], [1.0, 1.0]]
