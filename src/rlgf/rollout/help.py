"""Where a roll-in ends: which episodes have one, and at which token of its text the next author takes over.

And the drafts that the episodes of an update begin as, each with a seed of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rlgf import seeding
from rlgf.algorithms import Algorithm, RollinLength, functions
from rlgf.rollout.record import lengths_between
from rlgf.rollout.writers import Draft


def draw_switches(
    drafts: Sequence[Draft],
    row: Algorithm,
    progress: float,
    lengths: Callable[[Sequence[Draft]], Sequence[int]],
) -> list[int]:
    """How many tokens the roll-in author is asked for at each draft; 0 where there is no roll-in.

    Where several lengths are tried it is the longest. Each draft keeps the length of the text that its number was drawn
    from (`Draft.help_limit`).

    Args:
        drafts: one for each group; where `help.members` is set, one for each member.
        progress: the share of the run that is over.
        lengths: how many tokens the author's text has at each of some drafts, or may have where that is not known
            yet. It is asked about drafts with a roll-in only.
    """
    help = row.help
    if help.members is None:
        probability = help.probability.at(progress)
        chosen = [bool(_draws(draft.seed)[0] < probability) for draft in drafts]
    else:
        size = row.group_size
        groups = [_draw_members(d.seed, help.members, size) for d in drafts[::size]]
        chosen = [member in group for group in groups for member in range(size)]
    if help.gate is not None and not help.looks_first:
        opened = [help.gate.opens(draft.history.rate, draft.history.failures) for draft in drafts]
        chosen = [has and opens for has, opens in zip(chosen, opened, strict=True)]
    found = iter(lengths([draft for draft, has in zip(drafts, chosen, strict=True) if has]))
    switches = []
    for draft, has in zip(drafts, chosen, strict=True):
        draft.help_limit = next(found) if has else 0
        switches.append(_switch(draft, help.length, progress, _draws(draft.seed)[1]))
        if help.length.by == "law" and not switches[-1]:
            draft.help_limit = 0  # the bounds leave no length, and nobody is asked
    return switches


def positions(draft: Draft, law: RollinLength, progress: float) -> range:
    """The numbers of tokens that the switch of a draft is drawn from."""
    length, history = draft.help_limit, draft.history
    drawn = law.positions(length, progress)
    if law.by in ("law", "trial") or not length:
        return drawn
    # What the record or the difficulty asks for may also be no help at all.
    first = 0 if not drawn or law.low.at(progress) == 0 else drawn[0]
    last = drawn[-1] if drawn else 0
    if law.by == "record":
        if draft.own_rate < 0:
            untried = lengths_between(length, history.low, history.high) or range(length)
        else:
            # The group has just failed without a beginning: that is too short, whatever is remembered.
            first, low = max(first, min(1, last)), history.low or 0.0
            untried = lengths_between(length, low, history.high) or lengths_between(length, low, None)[:1]
        return range(min(max(first, untried[0]), last), max(min(last, untried[-1]), first) + 1)
    rate = history.rate if draft.own_rate < 0 else draft.own_rate
    wanted = 0 if rate is None else round((1 - rate) * length)
    wanted = min(max(wanted, first), last)
    return range(wanted, wanted + 1)


def draw_again(drafts: Sequence[Draft], switches: Sequence[int], row: Algorithm, progress: float) -> None:
    """Draw the switch again in drafts whose text turned out to be shorter, and take back what stands after it.

    The switch is to be a state that its author's text passed through. Of a text that ended at the first
    draw or before it the length L is known now, and the second draw is over that: the first one over 1..T-1
    and, where it is not below L, the second one over 1..L-1 make each of 1..L-1 equally probable. Of a text
    that was cut short, as by a server's own limit, each state after one of its tokens can be drawn.
    """
    for draft, switch in zip(drafts, switches, strict=True):
        if switch and (draft.finished or len(draft.ids) < switch):
            draft.cut(drawn_again(draft, len(draft.ids) + (not draft.finished), row, progress))


def drawn_again(draft: Draft, length: int, row: Algorithm, progress: float) -> int:
    """Another switch of a draft, over the length that its text turned out to have."""
    draft.help_limit = length
    where = seeding.uniforms(1, draft.seed, "switch again").item()
    return _switch(draft, row.help.length, progress, where)


def _draws(seed: int) -> list[float]:
    """Two random numbers: one decides whether a draft has a roll-in, the other how long it is."""
    draws: list[float] = seeding.uniforms(2, seed, "switch").tolist()
    return draws


def _draw_members(seed: int, members: int, group_size: int) -> set[int]:
    order = seeding.uniforms(group_size, seed, "members").argsort()
    return set(order[:members].tolist())


def _switch(draft: Draft, law: RollinLength, progress: float, where: float) -> int:
    if law.whole:
        return draft.help_limit
    if law.by not in functions.LENGTH_RULES:
        return _by_own_rule(draft, law, progress, where)
    among = positions(draft, law, progress)
    if law.by == "trial":
        return among[-1] if among else 0
    return among[int(where * len(among))] if among else 0


def _by_own_rule(draft: Draft, law: RollinLength, progress: float, where: float) -> int:
    if not draft.help_limit:
        return 0
    known = {**draft.history._asdict(), "length": draft.help_limit, "progress": progress, "where": where}
    if draft.own_rate >= 0:
        known["rate"] = draft.own_rate
    return functions.rule_length(law.by, law.options, known)


def episode_seed(seed: int, update: int, number: int) -> int:
    """The seed of the episodes of one sample of an update."""
    return seeding.derive(seed, "episode", update, number)


def examples_apart(opened: Sequence[Draft]) -> list[Draft]:
    """A draft for each prompt, with a seed of its own: a reward that learns is shown one text for each."""
    return [draft.branch(seeding.derive(draft.seed, "example")) for draft in opened]


def begun_apart(drafts: Sequence[Draft], row: Algorithm) -> Sequence[Draft]:
    """The drafts that have a beginning of their own: one for each group, or for each of its members."""
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
