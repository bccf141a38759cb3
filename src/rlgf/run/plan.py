"""What an update is made from, as far as it is known while earlier updates still run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rlgf.algorithms import Algorithm
from rlgf.config import Config
from rlgf.errors import UserError
from rlgf.run.data_order import by_difficulty, shuffled_passes
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
    """The plan of the current update, or of one that is to come, if updates alone end the run.

    Args:
        progress: how far the run is.
        row: the row that an update runs.

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
