"""Batches hold every row once, the longest first, within their budget."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rlgf.models.batching import length_batches

LENGTHS = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=30)


@given(LENGTHS, st.integers(1, 100))
def test_every_row_comes_once_and_no_batch_is_over_its_budget(rows: list[tuple[int, int]], most: int) -> None:
    left, right = (torch.tensor(column) for column in zip(*rows, strict=True))
    batches = [batch.tolist() for batch in length_batches(left, right, most)]
    order = [row for batch in batches for row in batch]
    assert sorted(order) == list(range(len(rows)))
    totals = [sum(rows[row]) for row in order]
    assert totals == sorted(totals, reverse=True)
    for batch in batches:
        widest = max(rows[row][0] for row in batch) + max(rows[row][1] for row in batch)
        assert len(batch) == 1 or len(batch) * widest <= most


def test_as_many_rows_as_fit_are_one_batch() -> None:
    same = torch.full((5,), 4)
    assert [len(batch) for batch in length_batches(same, same, 16)] == [2, 2, 1]
    assert [len(batch) for batch in length_batches(same, same, 10**6)] == [5]
