"""From samples to rollouts: what an update's episodes are, asked ahead where that can be, and written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from rlgf import seeding
from rlgf.algorithms import Algorithm, Script, Term
from rlgf.algorithms.spec import lacking
from rlgf.errors import UserError
from rlgf.guides.base import Guide, RemoteGuide
from rlgf.models.language_model import LanguageModel
from rlgf.models.samplers import Sampler
from rlgf.rollout.assembly import assemble, require_same_weights, rescored
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.dialogue import Dialogue
from rlgf.rollout.episodes import CandidateWriter, EpisodeWriter, Rewards
from rlgf.rollout.help import begun_apart, episode_seed, examples_apart, finished_apart
from rlgf.rollout.record import PromptHistory, PromptRecord
from rlgf.rollout.second_try import SecondTry
from rlgf.rollout.state_values import branch_values, start_values
from rlgf.rollout.writers import Draft, GuideWriter, prompt_tokens
from rlgf.types import Author, Rollout, Sample


class Collector(EpisodeWriter):
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
            start: the policy's frozen start, for rows that read start values.
            sampler, candidates, rewards, dialogue: see `EpisodeWriter`.
        """
        super().__init__(policy, guide, config, sampler, candidates, rewards, dialogue)
        self.remote = guide if isinstance(guide, RemoteGuide) else None
        """The guide, where it can be asked ahead and keeps account."""
        self.seed = seed
        self.start = None if start is None else Collector(start, None, config, seeding.derive(seed, "start"))

    def by(self, policy: LanguageModel) -> Collector:
        """The same with a copy of the policy, which writes with its own passes, and with the same guide, one
        text of which is the only candidate."""
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

        The result is a function of the arguments, the seed and the authors alone. Whoever lets the policy write by a
        sampler elsewhere brings it the weights first (`bring_weights`), in all processes.

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
            values = start_values(row, drafts, rewards, partial(self._by_start, drafts, update, numbers))
            rollout = replace(rollout, start_values=values)
        if self.sampler.largest_gap is not None:
            rollout = rescored(rollout, self.policy, self.config)
            require_same_weights(rollout, self.sampler.largest_gap)
        return rollout

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
        if isinstance(writer, GuideWriter | CandidateWriter) and self.remote is not None:
            opened = self._drafts(samples, update, range(len(samples)) if numbers is None else numbers)
            chosen = [(draft, limit) for draft, limit in self._ahead(opened, row, progress) if limit > 0]
            self.remote.prefetch(writer.requests([d for d, _ in chosen], [s for _, s in chosen]))

    def _ahead(self, opened: Sequence[Draft], row: Algorithm, progress: float) -> Iterator[tuple[Draft, int]]:
        """The drafts that the guide will be asked for whatever the policy writes, with their limits."""
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
        self.complete(shown, Author.GUIDE)
        return [self.policy.decode(draft.ids, self.policy.context(draft.prompt_ids)) for draft in shown]

    def _by_start(
        self,
        drafts: Sequence[Draft],
        update: int,
        numbers: Sequence[int],
        places: Sequence[int],
        row: Algorithm,
    ) -> Rollout:
        """What the policy's frozen start writes for some of the prompts; its tokens are booked as the policy's."""
        assert self.start is not None, "given where a run trains"
        before = Counter(self.start.sampled)
        with self.start.policy.running():
            samples = [drafts[place].sample for place in places]
            rollout = self.start.collect(samples, row, update, numbers=[numbers[place] for place in places])
        self.sampled += self.start.sampled - before
        return rollout

    def _drafts(self, samples: Sequence[Sample], update: int, numbers: Sequence[int]) -> list[Draft]:
        return [self._opened(sample, update, n) for n, sample in zip(numbers, samples, strict=True)]

    def _opened(self, sample: Sample, update: int, index: int) -> Draft:
        # Here, so that rewards and metrics read the same text that is learned from.
        references = tuple(self.policy.until_end(text) for text in sample.references)
        rejected = None if sample.rejected is None else self.policy.until_end(sample.rejected)
        sample = replace(sample, references=references, rejected=rejected)
        ids = prompt_tokens(self.policy, sample, self.config.max_prompt_tokens)
        return Draft(sample, ids, episode_seed(self.seed, update, index))


def _require(row: Algorithm, samples: Sequence[Sample], authors: set[Author]) -> None:
    """
    Raises:
        UserError: an author is missing, or a sample lacks what the row reads.
    """
    if {*row.script.authors, row.examples} - authors:
        raise UserError(f"algorithm '{row.name}' needs a guide: give the recipe a 'guide:' section.")
    # A configuration has shown its first samples; here come all of them, and those given by hand.
    found = next(filter(None, (lacking(row, sample) for sample in samples)), None)
    if found is not None:
        raise UserError(found)
