"""The drafts that the episodes of an update begin as, each with a seed of its own."""

from __future__ import annotations

from collections.abc import Sequence

from rlgf import seeding
from rlgf.algorithms import Algorithm
from rlgf.rollout.writers import Draft


def episode_seed(seed: int, update: int, number: int) -> int:
    """Of the episodes of one sample of an update."""
    return seeding.derive(seed, "episode", update, number)


def examples_apart(opened: Sequence[Draft]) -> list[Draft]:
    """What a reward that learns is shown one text for: each prompt, with a seed of its own."""
    return [draft.branch(seeding.derive(draft.seed, "example")) for draft in opened]


def begun_apart(drafts: Sequence[Draft], row: Algorithm) -> Sequence[Draft]:
    """What has a beginning of its own: each group, or each of its members."""
    return drafts if row.help.shared else members(drafts, row.group_size)


def finished_apart(begun: Sequence[Draft], row: Algorithm) -> list[Draft]:
    """The episodes of those beginnings, one after another."""
    return members(begun, row.group_size if row.help.shared else 1)


def members(drafts: Sequence[Draft], group_size: int) -> list[Draft]:
    """Each draft ``group_size`` times, with seeds of their own."""
    return [
        draft.branch(seeding.derive(draft.seed, "member", member))
        for draft in drafts
        for member in range(group_size)
    ]
