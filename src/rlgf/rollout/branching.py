"""What states within texts are worth: the mean reward of texts that go on from each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from rlgf import seeding
from rlgf.algorithms import Algorithm
from rlgf.rollout.assembly import assemble
from rlgf.rollout.candidates import Rewards
from rlgf.rollout.writers import Draft
from rlgf.types import Author, pad

if TYPE_CHECKING:
    from rlgf.rollout.collector import Collector


def branch_points(authors: Sequence[Author], every: int) -> list[int]:
    """The states of a text, as numbers of tokens before them, that texts are to branch off from.

    Every so many of the policy's own tokens, from the first one on, and where another goes on after its last.
    """
    own = [place for place, author in enumerate(authors) if author is Author.POLICY]
    if not own:
        return []
    over = own[-1] + 1
    return [*range(own[0], over, every), *([over] if over < len(authors) else [])]


def branches_of(draft: Draft, point: int, texts: int) -> list[Draft]:
    """Beginnings of an episode, each with a seed of its own."""
    found = [draft.branch(seeding.derive(draft.seed, "branch", point, number)) for number in range(texts)]
    for branch in found:
        branch.cut(point)
    return found


def branch_values(
    collector: Collector, episodes: Sequence[Draft], row: Algorithm, rewards: Rewards
) -> Float[Tensor, "B T"]:
    """``V(s)``, the mean reward of the texts that the roll-out's author writes on from a state.

    Returns:
        Of the state before each token; NaN where no text branches off.
    """
    assert row.branches is not None, "asked for where there are some"
    found = [torch.full((len(episode.ids),), torch.nan) for episode in episodes]
    states = [
        (number, point)
        for number, episode in enumerate(episodes)
        for point in branch_points(episode.authors, row.branches.every)
    ]
    if states:
        size = row.branches.texts
        texts = [branch for number, point in states for branch in branches_of(episodes[number], point, size)]
        collector.complete(texts, row.script.rollout)
        for text in texts:
            # Of truncated sampling: nothing is learned from these texts.
            text.kept = []
        groups = [place // size for place in range(len(texts))]
        paid = rewards(assemble(texts, groups, collector.policy, row.script))
        for (number, point), value in zip(states, paid.view(-1, size).mean(dim=1), strict=True):
            found[number][point] = value
    return pad(found, torch.nan)
