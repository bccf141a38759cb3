"""Help that looks at a group's own texts first. Where these open the gate, the texts that get help are written again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlgf import seeding
from rlgf.algorithms import Algorithm
from rlgf.algorithms.script import Tier
from rlgf.rollout.assembly import assemble
from rlgf.rollout.episodes import EpisodeWriter, Rewards
from rlgf.rollout.help import positions
from rlgf.rollout.record import succeeded
from rlgf.rollout.writers import Draft


@dataclass(frozen=True)
class SecondTry:
    """Writes the groups of a row whose gate looks at the group."""

    writer: EpisodeWriter
    row: Algorithm
    progress: float
    rewards: Rewards

    def episodes(self, drafts: Sequence[Draft]) -> list[Draft]:
        """Finished episodes, the row's ``group_size`` one after another for each draft."""
        row, gate = self.row, self.row.help.gate
        assert gate is not None, "looked at, so there is one"
        own = self.writer.episodes([draft.branch(draft.seed) for draft in drafts], row.alone, self.progress)
        opened = []
        for number, rate in enumerate(self._rates(own)):
            if gate.opens(rate):
                opened.append(number)
                drafts[number].own_rate = rate
        if row.tiers:
            self._try_tiers(own, drafts, opened)
        else:
            self._rewrite(own, [drafts[number] for number in opened], opened)
        return own

    def _try_tiers(self, own: list[Draft], drafts: Sequence[Draft], opened: Sequence[int]) -> None:
        """Write groups again with one tier of hints after another, until enough of these texts succeed.

        After the last tier a group stays as that left it.
        """
        size = self.row.group_size
        for rank, tier in enumerate(self.row.tiers):
            parts = [drafts[number].branch(drafts[number].seed) for number in opened]
            places = self._rewrite(own, parts, opened, tier, rank)
            won: dict[int, list[bool]] = {number: [] for number in opened}
            groups = [place // size for place in places]
            for number, success in zip(
                groups, self._won([own[place] for place in places], groups), strict=True
            ):
                won[number].append(success)
            enough = self.row.help.length.enough
            opened = [number for number in opened if sum(won[number]) <= enough * len(won[number])]

    def _rewrite(
        self,
        own: list[Draft],
        drafts: Sequence[Draft],
        opened: Sequence[int],
        tier: Tier | None = None,
        rank: int = 0,
    ) -> list[int]:
        """Write the members of some groups that get help again, in place of what they were.

        Args:
            own: the episodes of all groups.
            drafts: one for each of the groups.
            opened: the groups' numbers.
            rank: how many tiers were tried before this one.

        Returns:
            Which episodes have been written again.
        """
        row, size = self.row, self.row.group_size
        begun = self.writer.begun(drafts, row, self.progress, tier)
        # The draws of a text that failed would make the next one fail where it reads alike.
        begun = [draft.branch(seeding.derive(draft.seed, "again", rank)) for draft in begun]
        each = size if row.help.shared else 1
        firsts = [opened[place * each // size] * size + place * each % size for place in range(len(begun))]
        # What begins with nothing after a prompt without a hint, or with one that has been tried, stays as it was.
        helped = [
            place
            for place, draft in enumerate(begun)
            if draft.ids or (draft.hint and draft.hint != own[firsts[place]].hint)
        ]
        searched = row.help.length.by == "trial" and tier is None
        write = self._search if searched else self._finished
        again = write([begun[place] for place in helped])
        places: list[int] = []
        for number, place in enumerate(helped):
            first = firsts[place]
            own[first : first + each] = again[number * each : (number + 1) * each]
            places += range(first, first + each)
        return places

    def _finished(self, begun: Sequence[Draft]) -> list[Draft]:
        return self.writer.finished(begun, self.row)

    def _search(self, begun: Sequence[Draft]) -> list[Draft]:
        """The episodes after the shortest beginning that is found to be long enough, or after the last one tried.

        The search is a bisection. Each group's author has written once: the longest beginning, of which the others are
        parts.

        Args:
            begun: one for each group.
        """
        law, size = self.row.help.length, self.row.group_size
        ranges = [positions(draft, law, self.progress) for draft in begun]
        found: list[list[Draft]] = [[] for _ in begun]
        enough = [False] * len(begun)
        for trial in range(law.tries):
            under_way = [number for number, range_ in enumerate(ranges) if range_]
            if not under_way:
                break
            seeds = [seeding.derive(begun[number].seed, "trial", trial) for number in under_way]
            parts = [begun[number].branch(seed) for number, seed in zip(under_way, seeds, strict=True)]
            middles = [ranges[number][(len(ranges[number]) - 1) // 2] for number in under_way]
            for part, middle in zip(parts, middles, strict=True):
                part.cut(middle)
            episodes = self._finished(parts)
            for place, rate in enumerate(self._rates(episodes)):
                number, middle = under_way[place], middles[place]
                suffices = rate > law.enough
                if suffices or not enough[number]:
                    found[number] = episodes[place * size : (place + 1) * size]
                enough[number] |= suffices
                first, last = ranges[number][0], ranges[number][-1]
                ranges[number] = range(first, middle) if suffices else range(middle + 1, last + 1)
        return [episode for group in found for episode in group]

    def _rates(self, episodes: Sequence[Draft]) -> Iterator[float]:
        """The share of each group's texts that succeed."""
        size = self.row.group_size
        won = self._won(episodes, [number // size for number in range(len(episodes))])
        return (sum(won[first : first + size]) / size for first in range(0, len(won), size))

    def _won(self, episodes: Sequence[Draft], groups: Sequence[int]) -> list[bool]:
        if not episodes:
            return []
        finished = assemble(episodes, groups, self.writer.policy, self.row.script)
        won: list[bool] = succeeded(self.rewards(finished), self.row.help).tolist()
        return won
