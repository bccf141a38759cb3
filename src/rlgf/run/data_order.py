"""Which samples an update gets: shuffled passes over the data, one after another, or a draw by difficulty."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

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


_UNSEEN = 0.3
_LEAST = 0.05


def by_difficulty(count: int, size: int, seed: int, update: int, rates: Mapping[int, float]) -> list[int]:
    """Indices of ``count`` different samples out of ``size``, of which those that teach more are drawn more often.

    The draws are one after another without replacement, each in proportion to ``0.05 + r (1 - r)``, r being the share
    of successes at the prompt's last visit: texts of which all or none succeed have equal rewards, and a
    group-relative advantage of 0. A prompt that never came has 0.3, as much as one of which half succeed.

    Args:
        rates: r of each sample that has come.
    """
    weights = torch.full((size,), _UNSEEN, dtype=torch.float64)
    if rates:
        known = torch.tensor(list(rates.values()), dtype=torch.float64)
        weights[list(rates)] = _LEAST + known * (1 - known)
    # The largest of log(u) / w are such a draw (Efraimidis and Spirakis, 2006, algorithm A). Of a million samples the
    # largest lie so near to 0 that single precision would tie them.
    draws = torch.rand(size, dtype=torch.float64, generator=seeding.generator(seed, "draw", update))
    chosen: list[int] = (draws.log() / weights).topk(count).indices.tolist()
    return chosen
