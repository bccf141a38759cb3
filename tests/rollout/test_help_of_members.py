"""The drafts that an update begins with: how many, and that no two have a seed in common unless they are to."""

from __future__ import annotations

import pytest

from rlgf.algorithms.catalog import GUIDED_GRPO, PPO
from rlgf.rollout.help import begun_apart, episode_seed, examples_apart, finished_apart, members
from rlgf.rollout.writers import Draft
from rlgf.types import Sample


def drafts(count: int, update: int = 0) -> list[Draft]:
    return [Draft(Sample("a"), [1], episode_seed(0, update, number)) for number in range(count)]


def test_every_episode_of_every_update_has_a_seed_of_its_own() -> None:
    opened = [draft for update in range(5) for draft in drafts(7, update)]
    made = [*opened, *members(opened, 4), *examples_apart(opened)]
    assert len({draft.seed for draft in made}) == len(made) == 5 * 7 * 6
    assert [draft.seed for draft in members(opened, 4)] == [draft.seed for draft in members(opened, 4)]


def test_members_do_not_share_what_they_write() -> None:
    first, second = members(drafts(1), 2)
    first.ids.append(9)
    assert second.ids == []


@pytest.mark.parametrize("shared", [True, False])
def test_a_group_begins_once_or_each_of_its_members_does(shared: bool) -> None:
    row = GUIDED_GRPO.changed(group_size=3, help={"shared": shared})
    begun = begun_apart(drafts(2), row)
    assert len(begun) == (2 if shared else 6)
    assert len(finished_apart(begun, row)) == 6


def test_an_algorithm_without_groups_has_one_episode_a_prompt() -> None:
    assert len(finished_apart(begun_apart(drafts(2), PPO), PPO)) == 2
