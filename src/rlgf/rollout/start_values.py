"""The values of prompts, estimated from texts of the policy's frozen start."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rlgf.algorithms import Algorithm
from rlgf.objectives.advantages import optimal_value
from rlgf.rollout.candidates import Rewards
from rlgf.rollout.writers import Draft
from rlgf.types import Rollout


def start_values(
    row: Algorithm,
    drafts: Sequence[Draft],
    rewards: Rewards | None,
    write: Callable[[Sequence[int], Algorithm], Rollout],
) -> Float[Tensor, "B"]:
    """The value of each episode's prompt: what the record knows, else an estimate from texts that the start writes now.

    Args:
        drafts: one for each prompt.
        write: lets the start write for the drafts of some numbers, as a row says.
    """
    assert row.start_value is not None, "asked for where it is read"
    assert rewards is not None, "a row that reads start values is collected with its rewards"
    texts = row.start_value.texts
    new = [place for place, draft in enumerate(drafts) if draft.history.start_value is None]
    found = torch.tensor([draft.history.start_value or 0.0 for draft in drafts], dtype=torch.float64)
    if new:
        rollout = write(new, row.but(group_size=texts, start_value=None))
        earned = rewards(rollout).double().view(-1, texts)
        found[new] = optimal_value(earned, row.start_value.beta)
    return found.repeat_interleave(row.group_size)
