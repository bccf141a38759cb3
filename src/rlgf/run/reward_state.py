"""What a checkpoint holds of a reward that learns or counts, in one process and in several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rlgf import distributed
from rlgf.errors import UserError
from rlgf.models import sharding
from rlgf.states import digest

_BY_PROCESS = "by_process"


def read_reward(folder: Path) -> dict[str, Any]:
    """What a checkpoint holds of the reward, for `own_reward`."""
    state: dict[str, Any] = torch.load(folder / "reward.pt", weights_only=True, map_location="cpu")
    return state


def joint_reward(own: dict[str, Any] | None) -> dict[str, Any] | None:
    """The reward's state, or that of each process where they differ, as those of a reward that counts its texts
    do; called by all processes.

    Args:
        own: None where a process has none to give; each then keeps its own, or none where all write together.
    """
    if distributed.count() == 1:
        return own
    digests = distributed.gathered(None if own is None else digest(own))
    if None in digests and sharding.wanted():
        return None
    if None in digests or len(set(digests)) == 1:
        return own
    return {_BY_PROCESS: distributed.gathered(own)}


def own_reward(state: dict[str, Any]) -> dict[str, Any]:
    """This process's part of what `joint_reward` made.

    Raises:
        UserError: it was made by another number of processes.
    """
    if _BY_PROCESS not in state:
        return state
    states: list[dict[str, Any]] = state[_BY_PROCESS]
    if len(states) != distributed.count():
        raise UserError(
            f"the checkpoint holds a state of the reward for each of {len(states)} processes, which differ: resume "
            f"with as many (there are {distributed.count()}), or let the reward's state not depend on its share of the texts."
        )
    return states[distributed.rank()]
