"""The way back to the last finished update, for a failure in the middle of the next."""

from __future__ import annotations

from typing import Any

import psutil
import torch

from rlgf import distributed
from rlgf.learning.assessor import Assessor
from rlgf.learning.updater import Updater
from rlgf.models.sharding import is_sharded
from rlgf.states import copied

_SHARE_OF_MEMORY = 0.25


class Undo:
    """Copies, in memory, of what an update changes.

    The reward's state, which scoring may change, is copied when the update begins; weights and optimizer when
    learning does.
    """

    def __init__(self, update: int, assessor: Assessor) -> None:
        """
        Args:
            update: how many updates are finished.
        """
        self.update = update
        self.reward: dict[str, Any] = copied(assessor.state_dict())
        self._learning = False
        self._kept: tuple[list[torch.Tensor], dict[str, Any]] | None = None

    def keep(self, updater: Updater | None) -> None:
        """Learning begins: copy what it is about to change; None where the copy would crowd the memory, and
        there is no way back."""
        if updater is not None:
            self._kept = copied(updater.moved), copied(updater.optimizer.state_dict())
        self._learning = True

    @property
    def possible(self) -> bool:
        """Whether weights and optimizer are those of the last finished update, or can be again."""
        return self._kept is not None or not self._learning

    def put_back(self, updater: Updater, assessor: Assessor) -> None:
        if self._kept is not None:
            weights, optimizer = self._kept
            with torch.no_grad():
                for tensor, weight in zip(updater.moved, weights, strict=True):
                    tensor.copy_(weight)
                    tensor.grad = None
            updater.optimizer.load_state_dict(optimizer)
        assessor.load_state_dict(copied(self.reward))


def fits(updater: Updater) -> bool:
    """Whether copies of weights and optimizer, in all processes of the machine, take at most a quarter of its free memory.

    Of weights that processes share none are kept: to go back would take all processes, also the one that failed.
    """
    if any(is_sharded(parameter) for parameter in updater.trained):
        return False
    weights = sum(p.numel() * p.element_size() for p in updater.trained)
    # And two moments of each.
    return leaves_room(3 * weights)


def leaves_room(size: int) -> bool:
    """Whether copies of so many bytes are made, by each process of the machine."""
    return size * distributed.together() <= _SHARE_OF_MEMORY * int(psutil.virtual_memory().available)
