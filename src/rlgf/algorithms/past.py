"""The policy's own earlier successes as roll-ins."""

from __future__ import annotations

from rlgf.algorithms.row import Row
from rlgf.types import Author


def the_past_begins_texts(row: Row) -> str | None:
    hint = row.script.hint
    if Author.PAST in (row.script.rollout, row.examples) or (hint is not None and hint.author is Author.PAST):
        return (
            "the policy's past is no more than texts that were written: name 'past' as 'script.rollin' alone"
        )
    if row.script.rollin is Author.PAST and row.help.success is None:
        return (
            "'script.rollin: past' takes texts of the policy's that succeeded at an earlier visit: set 'help.success' to "
            "what a text has to earn to be one, such as 0.5"
        )
    return None
