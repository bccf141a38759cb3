"""The values of states, from texts that go on from them, and of prompts, from texts of the policy's start."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rlgf import seeding
from rlgf.algorithms import Algorithm
from rlgf.objectives.advantages import optimal_value
from rlgf.rollout.assembly import assemble
from rlgf.rollout.episodes import EpisodeWriter, Rewards
from rlgf.rollout.writers import Draft
from rlgf.types import Author, Rollout, pad


def branch_points(authors: Sequence[Author], every: int, starts: Sequence[int] | None = None) -> list[int]:
    """The states that texts are to branch off from; each is the number of tokens before it.

    They stand before every so many of the policy's own tokens, from the first one on, and after its last one where
    another author goes on.

    Args:
        starts: where each turn of a dialogue begins, which are then its states.
    """
    places = range(len(authors)) if starts is None else starts
    own = [place for place in places if authors[place] is Author.POLICY]
    after = [place for place in places if own and place > own[-1]]
    return [*own[::every], *after[:1]]


def branches_of(
    draft: Draft, point: int, texts: int, cut: Callable[[Draft, int], None] = Draft.cut
) -> list[Draft]:
    """Beginnings of an episode, each with a seed of its own.

    Args:
        cut: takes back what stands after so many tokens.
    """
    found = [draft.branch(seeding.derive(draft.seed, "branch", point, number)) for number in range(texts)]
    for branch in found:
        cut(branch, point)
    return found


def branch_values(
    writer: EpisodeWriter, episodes: Sequence[Draft], row: Algorithm, rewards: Rewards
) -> Float[Tensor, "B T"]:
    """``V(s)``, the mean reward of the texts that the roll-out's author writes on from a state.

    Returns:
        Of the state before each token; NaN where no text branches off.
    """
    assert row.branches is not None, "asked for where there are some"
    found = [torch.full((len(episode.ids),), torch.nan) for episode in episodes]
    dialogue, states = writer.dialogue, []
    for number, episode in enumerate(episodes):
        starts = None if dialogue is None else [0, *episode.replied]
        states += [(number, point) for point in branch_points(episode.authors, row.branches.every, starts)]
    if states:
        size, cut = row.branches.texts, Draft.cut if dialogue is None else dialogue.rewind
        texts = [text for number, point in states for text in branches_of(episodes[number], point, size, cut)]
        writer.complete(texts, row.script.rollout)
        for text in texts:
            # Of truncated sampling: nothing is learned from these texts.
            text.kept = []
        groups = [place // size for place in range(len(texts))]
        paid = rewards(assemble(texts, groups, writer.policy, row.script))
        for (number, point), value in zip(states, paid.view(-1, size).mean(dim=1), strict=True):
            found[number][point] = value
    return pad(found, torch.nan)


def start_values(
    row: Algorithm,
    drafts: Sequence[Draft],
    rewards: Rewards | None,
    write: Callable[[Sequence[int], Algorithm], Rollout],
) -> Float[Tensor, "B"]:
    """The value of each episode's prompt, from the record or else from texts that the start writes now.

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
