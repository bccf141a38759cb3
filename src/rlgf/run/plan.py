"""What an update is made from, as far as it is known while earlier updates still run, and in which order samples come."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from rlgf import seeding
from rlgf.algorithms import Algorithm
from rlgf.config import Config
from rlgf.errors import UserError
from rlgf.run.progress import Progress
from rlgf.types import Sample


@dataclass(frozen=True)
class Plan:
    """One update's row and prompts."""

    update: int
    row: Algorithm
    places: Sequence[int]
    """Of its samples in the training data."""
    samples: Sequence[Sample] = field(compare=False)
    progress: float
    """The share of the run that is over when it begins."""


def plan_of(
    update: int, progress: Progress, config: Config, train: Sequence[Sample], row: Callable[[int], Algorithm]
) -> Plan:
    """The plan of the current update of a run that is so far, or of one that is to come, if updates alone end the run; each
    runs its ``row``.

    Raises:
        UserError: the update is to come, and its samples are drawn by difficulty, which the texts before it have yet
            to tell.
    """
    share, rollout = update / config.training.updates, config.rollout
    if update == progress.update:
        share = progress.share(config.training)
    count, first = rollout.prompts(row(update)), progress.samples
    if rollout.draw == "passes":
        first += sum(rollout.prompts(row(number)) for number in range(progress.update, update))
        places = list(shuffled_passes(first, count, len(train), config.seed))
    elif update == progress.update:
        places = by_difficulty(count, len(train), config.seed, update, progress.prompts.rates)
    else:
        raise UserError("'rollout.draw: difficulty' tells the next samples only after this update.")
    return Plan(update, row(update), places, [train[place] for place in places], share)


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
    of successes at the prompt's last visit (``rates``): texts of which all or none succeed have equal rewards, and a
    group-relative advantage of 0. A prompt that never came has 0.3, as much as one of which half succeed.
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
