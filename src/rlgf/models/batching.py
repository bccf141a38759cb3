"""Cutting a batch into micro-batches of like lengths, so that padding costs next to nothing."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor


def length_batches(lengths: Int[Tensor, "N"], max_tokens: int) -> Iterator[Int[Tensor, "_"]]:
    """Yield row indices in order of falling length, as many as fit.

    A batch takes ``rows * its longest length`` tokens with its padding, at most ``max_tokens``;
    a single row that is longer than that makes a batch of its own. The longest come first, so
    that a budget that is too large for memory fails at once.
    """
    order = torch.argsort(lengths, descending=True, stable=True)
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        size = max(max_tokens // longest, 1)
        yield order[start : start + size]
        start += size
