"""Where a roll-in ends: which episodes have one, and at which token of its text the next author takes over."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rlgf import seeding
from rlgf.algorithms import Algorithm
from rlgf.rollout.writers import Draft


def draw_switches(
    drafts: Sequence[Draft],
    row: Algorithm,
    progress: float,
    lengths: Callable[[Sequence[Draft]], Sequence[int]],
) -> list[int]:
    """How many tokens the roll-in author is asked for at each draft; 0 where there is no roll-in.

    Args:
        drafts: one a group, or where `help.members` is set its members one after the other.
        progress: the share of the run that is over.
        lengths: how many tokens the author's text at each of these drafts has, or may have at most where
            that is not known yet. It is asked for those that have a roll-in alone.
    """
    if row.help.members is None:
        probability = row.help.probability.at(progress)
        chosen = [bool(_draws(draft.seed)[0] < probability) for draft in drafts]
    else:
        size = row.group_size
        groups = [_draw_members(d.seed, row.help.members, size) for d in drafts[::size]]
        chosen = [member in group for group in groups for member in range(size)]
    found = iter(lengths([draft for draft, has in zip(drafts, chosen, strict=True) if has]))
    switches = []
    for draft, has in zip(drafts, chosen, strict=True):
        length = next(found) if has else 0
        positions = row.help.length.positions(length, progress)
        switches.append(length if row.help.length.whole else _pick(positions, _draws(draft.seed)[1]))
    return switches


def draw_again(drafts: Sequence[Draft], switches: Sequence[int], row: Algorithm, progress: float) -> None:
    """Draw the switch again in drafts whose text turned out to be shorter, and take back what stands after it.

    The switch is to be a state that its author's text passed through. Of a text that ended at the first
    draw or before it the length L is known now, and the second draw is over that: the first one over 1..T-1
    and, where it is not below L, the second one over 1..L-1 make each of 1..L-1 equally probable. Of a text
    that was cut short, as by a server's own limit, each state after one of its tokens can be drawn.
    """
    for draft, switch in zip(drafts, switches, strict=True):
        if switch and (draft.finished or len(draft.ids) < switch):
            length = len(draft.ids) + (not draft.finished)
            where = seeding.uniforms(1, 1, draft.seed, "switch again")[0, 0].item()
            draft.cut(_pick(row.help.length.positions(length, progress), where))


def _draws(seed: int) -> list[float]:
    """What decides whether a draft has a roll-in, and how long that is."""
    draws: list[float] = seeding.uniforms(1, 2, seed, "switch")[0].tolist()
    return draws


def _draw_members(seed: int, members: int, group_size: int) -> set[int]:
    order = seeding.uniforms(1, group_size, seed, "members")[0].argsort()
    return set(order[:members].tolist())


def _pick(positions: range, where: float) -> int:
    return positions[int(where * len(positions))] if positions else 0
