"""From drafts to finished episodes: the switch time first, then each author writes its own part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from jaxtyping import Float
from torch import Tensor

from rlgf import seeding
from rlgf.algorithms import Algorithm
from rlgf.algorithms.script import Tier
from rlgf.guides.base import Guide, Request
from rlgf.models.language_model import LanguageModel
from rlgf.models.samplers import BuiltinSampler, Sampler
from rlgf.rollout.assembly import assemble
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.dialogue import Dialogue
from rlgf.rollout.help import begun_apart, draw_again, draw_switches, finished_apart, members
from rlgf.rollout.hints import HintGiver
from rlgf.rollout.writers import (
    Draft,
    ForeseeingWriter,
    GuideWriter,
    Passage,
    PastWriter,
    PolicyWriter,
    ReferenceWriter,
    Writer,
)
from rlgf.types import Author, Rollout

Rewards = Callable[[Rollout], Float[Tensor, "B"]]
"""Scores finished episodes."""


@dataclass(frozen=True)
class CandidateWriter:
    """A guide that is asked for several texts, each of which ends its draft; of equals the first is taken."""

    writer: GuideWriter
    number: int
    rewards: Rewards

    def write(self, drafts: Sequence[Draft], limits: Sequence[int]) -> list[Passage]:
        """The best of each draft's candidates; what all of them took is in its ``sampled``."""
        tried, each = self._tried(drafts, limits)
        parts = self.writer.write(tried, each)
        for draft, part in zip(tried, parts, strict=True):
            draft.add(Author.GUIDE, part)
        groups = [place // self.number for place in range(len(tried))]
        paid = self.rewards(assemble(tried, groups, self.writer.policy)).tolist()
        found = []
        for first in range(0, len(tried), self.number):
            places = range(first, first + self.number)
            best = parts[max(places, key=paid.__getitem__)]
            # Recorded texts cost nothing but the one that is used.
            spent = sum(parts[place].sampled or 0 for place in places)
            found.append(replace(best, sampled=spent + (len(best.ids) if best.sampled is None else 0)))
        return found

    def requests(self, drafts: Sequence[Draft], limits: Sequence[int]) -> list[Request]:
        return self.writer.requests(*self._tried(drafts, limits))

    def _tried(self, drafts: Sequence[Draft], limits: Sequence[int]) -> tuple[list[Draft], list[int]]:
        tried = [draft.branch(seed) for draft in drafts for seed in candidate_seeds(draft.seed, self.number)]
        return tried, [limit for limit in limits for _ in range(self.number)]


def candidate_seeds(seed: int, number: int) -> list[int]:
    """The seeds of a draft's candidates. The first is the draft's own, so that a single candidate is the usual text."""
    return [seed, *(seeding.derive(seed, "candidate", place) for place in range(1, number))]


class EpisodeWriter:
    """Lets a policy and, where the algorithm asks for one, a guide write episodes."""

    def __init__(
        self,
        policy: LanguageModel,
        guide: Guide | None,
        config: RolloutConfig,
        sampler: Sampler | None = None,
        candidates: int = 1,
        rewards: Rewards | None = None,
        dialogue: Dialogue | None = None,
    ) -> None:
        """
        Args:
            sampler: where the policy's tokens come from; default: the policy itself.
            candidates: how many texts the guide writes for each request.
            rewards: pick one of several candidates.
            dialogue: where an environment answers what is written.
        """
        self.policy = policy
        self.guide = guide
        self.sampler: Sampler = sampler or BuiltinSampler(policy, "policy", config.max_batch_tokens)
        self.config = config
        self.dialogue = dialogue
        self.sampled: Counter[Author] = Counter()
        """How many tokens the policy and the guide have sampled here so far, whatever became of them: a
        roll-in that a group shares counts once, a text that was dropped or cut off counts whole."""
        self.hints = HintGiver(policy, config)
        self.writers: dict[Author, Writer] = {
            Author.POLICY: PolicyWriter(self.sampler, config.sampling),
            Author.REFERENCE: ReferenceWriter(policy),
            Author.PAST: PastWriter(policy),
        }
        if guide is not None:
            writer = GuideWriter(guide, policy)
            self.writers[Author.GUIDE] = writer
            if candidates > 1:
                assert rewards is not None, "several candidates come with what judges them"
                self.writers[Author.GUIDE] = CandidateWriter(writer, candidates, rewards)

    def episodes(self, drafts: Sequence[Draft], row: Algorithm, progress: float) -> list[Draft]:
        """Finished episodes, the row's ``group_size`` one after another for each draft."""
        if row.from_pairs:
            return self._given_pairs(drafts)
        return self.finished(self.begun(drafts, row, progress), row)

    def begun(
        self, drafts: Sequence[Draft], row: Algorithm, progress: float, tier: Tier | None = None
    ) -> Sequence[Draft]:
        """What the episodes of some drafts begin with: one for each group, or for each of its members.

        Args:
            tier: which hint, of a row whose hints have tiers.
        """
        begun = begun_apart(drafts, row)
        if row.script.hint is not None:
            self.hints.give(begun, row, progress, self._written, tier)
        if row.script.rollin is not None:
            switches = self._switches(begun, row, progress)
            if self.dialogue is not None:
                write = partial(self._write_on, row.script.rollin)
                self.dialogue.begin(begun, switches, row, progress, write)
                return begun
            self._add(row.script.rollin, begun, switches)
            if row.help.length.whole:
                for draft in begun:
                    draft.help_limit = len(draft.ids)
            # Where the policy ended its own roll-in the text is over: the loss judges that choice.
            elif row.script.rollin is not Author.POLICY:
                draw_again(begun, switches, row, progress)
        return begun

    def finished(self, begun: Sequence[Draft], row: Algorithm) -> list[Draft]:
        """The episodes that go on from some beginnings, one after another for each."""
        episodes = finished_apart(begun, row)
        # Nothing is written after a whole text, also where the limit cut off its end.
        open_ = [e for e in episodes if not (e.finished or (row.help.length.whole and e.ids))]
        self.complete(open_, row.script.rollout)
        return episodes

    def complete(self, drafts: Sequence[Draft], author: Author) -> None:
        """Let an author write each of some unfinished drafts to its end."""
        # The data's own text stands as it is, answers included.
        if self.dialogue is None or author is Author.REFERENCE:
            self._write_on(author, drafts)
        else:
            turns = [self.dialogue.most_turns] * len(drafts)
            self.dialogue.hold(drafts, turns, partial(self._write_on, author))

    def _given_pairs(self, drafts: Sequence[Draft]) -> list[Draft]:
        """The preferred and the rejected text of each draft's sample, one after the other."""
        episodes = members(drafts, 2)
        given = [episode.branch(episode.seed) for episode in episodes]
        for rejected in given[1::2]:
            rejected.sample = replace(rejected.sample, references=(str(rejected.sample.rejected),))
        self.complete(given, Author.REFERENCE)
        for episode, side in zip(episodes, given, strict=True):
            # The sample stays that of the data: its reference is the preferred text.
            side.sample = episode.sample
        return given

    def _write_on(self, author: Author, drafts: Sequence[Draft]) -> None:
        """Let an author write until it ends each text, or in a dialogue its turn."""
        self._add(author, drafts, [self.config.max_response_tokens - len(draft.ids) for draft in drafts])

    def _switches(self, drafts: Sequence[Draft], row: Algorithm, progress: float) -> list[int]:
        assert row.script.rollin is not None, "asked for where it is set"
        return draw_switches(drafts, row, progress, partial(self._lengths, row.script.rollin))

    def _lengths(self, author: Author, drafts: Sequence[Draft]) -> list[int]:
        """How many tokens each text of an author has, or may have where that is not known yet."""
        if self.dialogue is not None:
            return [self.dialogue.most_turns] * len(drafts)
        limit, writer = self.config.limit(author), self.writers[author]
        if not isinstance(writer, ForeseeingWriter):
            return [limit] * len(drafts)
        known = writer.lengths(drafts, [limit] * len(drafts))
        return [limit if length is None else length for length in known]

    def _add(self, author: Author, drafts: Sequence[Draft], limits: Sequence[int]) -> None:
        """Let one author continue those drafts that have a limit above 0."""
        most = self.config.limit(author)
        chosen = [(draft, min(limit, most)) for draft, limit in zip(drafts, limits, strict=True) if limit > 0]
        if not chosen:
            return
        turn = None if self.dialogue is None or author is Author.REFERENCE else self.dialogue.turn
        parts = self._written(author, [draft for draft, _ in chosen], [limit for _, limit in chosen], turn)
        for (draft, _), part in zip(chosen, parts, strict=True):
            draft.add(author, part)

    def _written(
        self,
        author: Author,
        drafts: Sequence[Draft],
        limits: Sequence[int],
        turn: Callable[[Draft, Passage], Passage] | None = None,
    ) -> Sequence[Passage]:
        """What an author adds to each draft, of which ``turn`` keeps one turn of a dialogue; its tokens are booked."""
        parts = self.writers[author].write(drafts, limits)
        if turn is not None:
            parts = list(map(turn, drafts, parts))
        if author is not Author.REFERENCE:
            self.sampled[author] += sum(part.booked for part in parts)
        return parts
