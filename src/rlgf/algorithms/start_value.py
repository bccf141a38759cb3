"""The value of a prompt, estimated once from texts that the policy's frozen start writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from rlgf.types import Author

if TYPE_CHECKING:
    from rlgf.algorithms.spec import Algorithm


class StartValue(BaseModel):
    """How the value of a prompt is estimated at its first visit, see `rlgf.objectives.advantages.optimal_value`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    texts: int = Field(default=8, ge=1)
    """How many texts the start writes."""
    beta: float = Field(default=0.5, gt=0, allow_inf_nan=False)
    """The smaller, the nearer the value is to the best of what they earn; the larger, to the mean."""


def start_values_are_read(row: Algorithm) -> str | None:
    reads = row.estimator is not None and row.estimator.reads_start
    if reads != (row.start_value is not None):
        return (
            "'start_value' says how the advantage 'over_start' estimates the value of a prompt: set both, such as "
            "'start_value: {texts: 8, beta: 0.5}', or neither"
        )
    if reads and (row.script.rollout is not Author.POLICY or row.script.rollin or row.script.hint):
        return "a start value is that of the bare prompt: let the policy write whole texts, without roll-ins and hints"
    if reads and (row.learned_reward or row.whiten):
        return (
            "a start value stays as it was first estimated, and is compared with what texts earn: leave 'learned_reward' "
            "and 'whiten' out"
        )
    return None
