"""From samples to finished episodes: the switch time first, then each author writes its own part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from rlgf import seeding
from rlgf.algorithms import Algorithm, Script, Term
from rlgf.algorithms.hint import Tier
from rlgf.algorithms.needs import lacking
from rlgf.errors import UserError
from rlgf.guides.base import Guide, RemoteGuide
from rlgf.models.language_model import LanguageModel
from rlgf.models.samplers import BuiltinSampler, Sampler, bring_weights
from rlgf.rollout.assembly import assemble
from rlgf.rollout.branching import branch_values
from rlgf.rollout.candidates import Rewards, guide_writer
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.dialogue import Dialogue
from rlgf.rollout.help import draw_again, draw_switches
from rlgf.rollout.hints import HintGiver
from rlgf.rollout.record import PromptHistory, PromptRecord
from rlgf.rollout.rescored import require_same_weights, rescored
from rlgf.rollout.second_try import SecondTry
from rlgf.rollout.start_values import start_values
from rlgf.rollout.writers import (
    AskingWriter,
    Draft,
    ForeseeingWriter,
    Passage,
    PastWriter,
    PolicyWriter,
    ReferenceWriter,
    Writer,
    prompt_tokens,
)
from rlgf.types import Author, Rollout, Sample


class Collector:
    """Makes rollouts with a policy and, where the algorithm asks for one, a guide."""

    def __init__(
        self,
        policy: LanguageModel,
        guide: Guide | None,
        config: RolloutConfig,
        seed: int,
        sampler: Sampler | None = None,
        candidates: int = 1,
        rewards: Rewards | None = None,
        start: LanguageModel | None = None,
        dialogue: Dialogue | None = None,
    ) -> None:
        """
        Args:
            sampler: where the policy's tokens come from; default: the policy itself.
            candidates: how many texts the guide writes for each request.
            rewards: pick one of several candidates.
            start: the policy's frozen start, for rows that read start values.
            dialogue: where an environment answers what is written.
        """
        self.policy = policy
        self.guide = guide
        self.sampler: Sampler = sampler or BuiltinSampler(policy, "policy", config.max_batch_tokens)
        self.remote = guide if isinstance(guide, RemoteGuide) else None
        """The guide, where it can be asked ahead and keeps account."""
        self.config = config
        self.seed = seed
        self.dialogue = dialogue
        self.start = None if start is None else Collector(start, None, config, seeding.derive(seed, "start"))
        self.sampled: Counter[Author] = Counter()
        """How many tokens the policy and the guide have sampled here so far, whatever became of them: a
        roll-in that a group shares counts once, a text that was dropped or cut off counts whole."""
        self.hints = HintGiver(policy, config)
        self.writers: Mapping[Author, Writer] = {
            Author.POLICY: PolicyWriter(self.sampler, config.sampling),
            Author.REFERENCE: ReferenceWriter(policy),
            Author.PAST: PastWriter(policy),
            **({Author.GUIDE: guide_writer(guide, policy, candidates, rewards)} if guide is not None else {}),
        }

    def by(self, policy: LanguageModel) -> Collector:
        """The same with a copy of the policy, which writes with its own passes; the guide, of which each text is the
        only candidate, is the same one."""
        dialogue = None if self.dialogue is None else replace(self.dialogue, policy=policy)
        return Collector(policy, self.guide, self.config, self.seed, dialogue=dialogue)

    def collect(
        self,
        samples: Sequence[Sample],
        row: Algorithm,
        update: int = 0,
        progress: float = 0.0,
        rewards: Rewards | None = None,
        numbers: Sequence[int] | None = None,
        index: Sequence[int] | None = None,
        record: PromptRecord | None = None,
    ) -> Rollout:
        """One rollout: the row's ``group_size`` of episodes for each sample, as it says who writes what.

        The result is a function of the arguments, the seed and the authors alone.

        Args:
            update: number of the update; another number draws other episodes.
            progress: the share of the run that is over, for schedules.
            rewards: scores texts, for a row whose help looks at a group's own texts first, or that values states or
                prompts by texts.
            numbers: the samples' numbers within the update, where they are a share of its samples.
            index: their places in the training data, where they are from there.
            record: what the run remembers of these.

        Raises:
            UserError: The row needs a guide and there is none, or a reference and a sample has none; or an engine
                wrote with other weights than the policy's.
        """
        _require(row, samples, set(self.writers))
        bring_weights(self.sampler)
        numbers = range(len(samples)) if numbers is None else numbers
        drafts = self._drafts(samples, update, numbers)
        for draft, place in zip(drafts, index or (), strict=index is not None):
            draft.index = place
            draft.history = PromptHistory() if record is None else record[place]
        shown = examples_apart(drafts) if row.examples is Author.GUIDE else []
        if row.help.looks_first:
            assert rewards is not None, "a row whose help looks at texts is collected with its rewards"
            episodes = SecondTry(self, row, progress, rewards).episodes(drafts)
        else:
            episodes = self.episodes(drafts, row, progress)
        groups = [number for number in numbers for _ in range(row.group_size)]
        rollout = assemble(episodes, groups, self.policy, row.script)
        if row.branches is not None:
            assert rewards is not None, "a row that values states by texts is collected with its rewards"
            rollout = replace(rollout, branch_values=branch_values(self, episodes, row, rewards))
        if shown:
            texts = self._examples(shown)
            rollout = replace(rollout, examples=tuple(t for t in texts for _ in range(row.group_size)))
        if row.start_value is not None:
            values = start_values(self, row, drafts, update, numbers, rewards)
            rollout = replace(rollout, start_values=values)
        if self.sampler.largest_gap is not None:
            rollout = rescored(rollout, self.policy, self.config)
            require_same_weights(rollout, self.sampler.largest_gap)
        return rollout

    def episodes(self, drafts: Sequence[Draft], row: Algorithm, progress: float) -> list[Draft]:
        """Finished episodes, the row's ``group_size`` one after another for each draft."""
        if row.from_pairs:
            return given_pairs(self, drafts)
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
            # A roll-in of the policy's stays ended, since its choice to end is what the loss is to judge.
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

    def _write_on(self, author: Author, drafts: Sequence[Draft]) -> None:
        """Let an author write until it ends each text, or in a dialogue its turn."""
        self._add(author, drafts, [self.config.max_response_tokens - len(draft.ids) for draft in drafts])

    def prefetch(
        self,
        samples: Sequence[Sample],
        row: Algorithm,
        update: int,
        progress: float,
        numbers: Sequence[int] | None = None,
    ) -> None:
        """Ask a remote guide now for the texts that `collect` with the same arguments will need.

        What the guide is to finish cannot be asked ahead: the policy has yet to begin it.
        """
        writer = self.writers.get(Author.GUIDE)
        if isinstance(writer, AskingWriter) and self.remote is not None:
            opened = self._drafts(samples, update, range(len(samples)) if numbers is None else numbers)
            chosen = [(draft, limit) for draft, limit in self._ahead(opened, row, progress) if limit > 0]
            self.remote.prefetch(writer.requests([d for d, _ in chosen], [s for _, s in chosen]))

    def _ahead(self, opened: Sequence[Draft], row: Algorithm, progress: float) -> Iterator[tuple[Draft, int]]:
        """What the guide will be asked whatever the policy writes, with its limits."""
        whole = self.config.limit(Author.GUIDE)
        if row.examples is Author.GUIDE:
            yield from ((draft, whole) for draft in examples_apart(opened))
        if row.script.helper is Author.GUIDE and row.foreseen:
            drafts = begun_apart(opened, row)
            if row.script.hint is not None:
                drafts, switches = self.hints.asked(drafts, row, progress)
            else:
                switches = self._switches(drafts, row, progress)
                if self.dialogue is not None:  # so many turns, of which the first can be asked ahead
                    switches = [whole if turns else 0 for turns in switches]
            yield from zip(drafts, switches, strict=True)
        elif row.script == Script(rollout=Author.GUIDE):
            yield from ((draft, whole) for draft in finished_apart(begun_apart(opened, row), row))

    def answers(
        self,
        author: Author,
        samples: Sequence[Sample],
        update: int = 0,
        numbers: Sequence[int] | None = None,
    ) -> Rollout:
        """One whole response to each sample's prompt, all by one author.

        Args:
            numbers: see `collect`.

        Raises:
            UserError: the author is the guide and there is none, or the reference and a sample has none.
        """
        row = Algorithm(
            name=author.name.lower(), script=Script(rollout=author), terms={"nll": Term(loss="nll")}
        )
        return self.collect(samples, row, update, numbers=numbers)

    def _examples(self, shown: Sequence[Draft]) -> list[str]:
        """What the guide writes for a reward that learns."""
        self.complete(shown, Author.GUIDE)
        return [self.policy.decode(draft.ids, self.policy.context(draft.prompt_ids)) for draft in shown]

    def _drafts(self, samples: Sequence[Sample], update: int, numbers: Sequence[int]) -> list[Draft]:
        return [opened(self, sample, update, n) for n, sample in zip(numbers, samples, strict=True)]

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
        parts = self._written(author, [draft for draft, _ in chosen], [limit for _, limit in chosen])
        for (draft, _), part in zip(chosen, parts, strict=True):
            draft.add(author, part)

    def _written(self, author: Author, drafts: Sequence[Draft], limits: Sequence[int]) -> Sequence[Passage]:
        """What an author adds to each draft, in a dialogue at most one turn; its tokens are booked."""
        parts = self.writers[author].write(drafts, limits)
        if author is not Author.REFERENCE:
            parts = parts if self.dialogue is None else list(map(self.dialogue.turn, drafts, parts))
            self.sampled[author] += sum(part.booked for part in parts)
        return parts


def given_pairs(collector: Collector, drafts: Sequence[Draft]) -> list[Draft]:
    """The preferred and the rejected text of each draft's sample, one after the other."""
    episodes = members(drafts, 2)
    given = [episode.branch(episode.seed) for episode in episodes]
    for rejected in given[1::2]:
        rejected.sample = replace(rejected.sample, references=(str(rejected.sample.rejected),))
    collector.complete(given, Author.REFERENCE)
    for episode, side in zip(episodes, given, strict=True):
        # The sample stays that of the data: its reference is the preferred text.
        side.sample = episode.sample
    return given


def opened(collector: Collector, sample: Sample, update: int, index: int) -> Draft:
    """The draft of a sample: its prompt, and nothing written yet."""
    # Here, so that rewards and metrics read the same text that is learned from.
    references = tuple(collector.policy.until_end(text) for text in sample.references)
    rejected = None if sample.rejected is None else collector.policy.until_end(sample.rejected)
    sample = replace(sample, references=references, rejected=rejected)
    ids = prompt_tokens(collector.policy, sample, collector.config.max_prompt_tokens)
    return Draft(sample, ids, episode_seed(collector.seed, update, index))


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


def _require(row: Algorithm, samples: Sequence[Sample], authors: set[Author]) -> None:
    """
    Raises:
        UserError: an author is missing, or a sample lacks what the row reads.
    """
    if {*row.script.authors, row.examples} - authors:
        raise UserError(f"algorithm '{row.name}' needs a guide: give the recipe a 'guide:' section.")
    # A configuration has shown its first sample; here come all of them, and those given by hand.
    found = next(filter(None, (lacking(row, sample) for sample in samples)), None)
    if found is not None:
        raise UserError(found)
