"""Cutting a batch into micro-batches of like lengths, so that padding costs next to nothing."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor


def length_batches(
    left: Int[Tensor, "N"], right: Int[Tensor, "N"], max_tokens: int
) -> Iterator[Int[Tensor, "_"]]:
    """Yield row indices in order of falling length, as many as fit.

    The left parts (prompts, padded on the left) and right parts (responses, padded on the right) of a
    batch line up, so a batch takes ``rows * (longest left + longest right)`` tokens, at most
    ``max_tokens``; a single row that is longer than that makes a batch of its own. The longest come
    first, so that a budget that is too large for memory fails at once.
    """
    rows: list[int] = []
    longest = (0, 0)
    lefts, rights = left.tolist(), right.tolist()
    for row in torch.argsort(left + right, descending=True, stable=True).tolist():
        widened = max(longest[0], lefts[row]), max(longest[1], rights[row])
        if rows and (len(rows) + 1) * sum(widened) > max_tokens:
            yield torch.tensor(rows)
            rows, widened = [], (lefts[row], rights[row])
        rows.append(row)
        longest = widened
    if rows:
        yield torch.tensor(rows)
