"""The value of a prompt, estimated once from texts that the policy's frozen start writes: where a row can read it."""

from __future__ import annotations

from rlgf.algorithms.row import Row
from rlgf.types import Author


def start_values_are_read(row: Row) -> str | None:
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
