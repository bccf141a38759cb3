"""The values of prompts, estimated from texts of the policy's frozen start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from rlgf.algorithms import Algorithm
from rlgf.objectives.advantages import optimal_value
from rlgf.rollout.candidates import Rewards
from rlgf.rollout.writers import Draft

if TYPE_CHECKING:
    from rlgf.rollout.collector import Collector


def start_values(
    collector: Collector,
    row: Algorithm,
    drafts: Sequence[Draft],
    update: int,
    numbers: Sequence[int],
    rewards: Rewards | None,
) -> Float[Tensor, "B"]:
    """The value of each episode's prompt: what the record knows, else an estimate from texts that the start writes now.

    Their tokens are booked as the policy's.

    Args:
        drafts: one for each prompt.
        numbers: of the drafts' samples within the update.
    """
    start = collector.start
    assert row.start_value is not None, "asked for where it is read"
    assert start is not None, "given where a run trains"
    assert rewards is not None, "a row that reads start values is collected with its rewards"
    texts = row.start_value.texts
    writing = row.model_copy(update={"group_size": texts, "start_value": None})
    new = [place for place, draft in enumerate(drafts) if draft.history.start_value is None]
    found = torch.tensor([draft.history.start_value or 0.0 for draft in drafts], dtype=torch.float64)
    if new:
        before = Counter(start.sampled)
        with start.policy.running():
            samples = [drafts[place].sample for place in new]
            rollout = start.collect(samples, writing, update, numbers=[numbers[place] for place in new])
        collector.sampled += start.sampled - before
        earned = rewards(rollout).double().view(-1, texts)
        found[new] = optimal_value(earned, row.start_value.beta)
    return found.repeat_interleave(row.group_size)
