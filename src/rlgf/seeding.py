"""Randomness without state.

Every random number of a run is drawn from a generator whose seed is a function of the run's seed
and of what the number is for. A resumed run therefore needs no saved random state, and no draw
depends on which other draws happened before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor


def derive(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose: the same for the same arguments, on any machine, and below 2**31."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(derive(seed, *purpose))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's own generator of the CPU, where first weights are drawn, seeded for the block and then as it was.

    Other devices are left alone: to save their generators would start every one of them in every process.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def uniforms(count: int, seed: int, *purpose: str | int) -> Float[Tensor, "count"]:
    """Numbers in [0, 1), on the CPU."""
    return torch.rand(count, generator=generator(seed, *purpose))
