"""Which samples an update gets: shuffled passes over the data, one after another."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch

from rlgf import seeding


def shuffled_passes(first: int, count: int, size: int, seed: int) -> Iterator[int]:
    """Indices of a stretch of the endless sequence of shuffled passes over ``size`` samples."""
    for epoch in range(first // size, (first + count - 1) // size + 1):
        start = epoch * size
        yield from _order(size, seed, epoch)[max(first - start, 0) : first + count - start].tolist()


@functools.lru_cache(maxsize=1)
def _order(size: int, seed: int, epoch: int) -> torch.Tensor:
    """The order of one pass; kept, since an update reads a few of what may be millions."""
    return torch.randperm(size, generator=seeding.generator(seed, "order", epoch))
