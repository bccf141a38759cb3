"""Who will be asked for what in a run, by the collector's own draws, before anything is written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlgf import seeding
from rlgf.algorithms import Algorithm, AnyAlgorithm
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.help import (
    begun_apart,
    draw_switches,
    episode_seed,
    examples_apart,
    finished_apart,
    members,
)
from rlgf.rollout.state_values import branch_points, branches_of
from rlgf.rollout.writers import Draft
from rlgf.types import Author, Sample

_MOST_EPISODES = 20_000
"""That a plan looks at one by one, which takes seconds."""


@dataclass(frozen=True)
class Ask:
    """A text that an author is asked for, or may be."""

    author: Author
    sample: int
    """The number of its sample within the update."""
    seed: int
    """The seed of the draft that it goes on with."""
    written: int
    """Tokens of the response that stand before it, at most; of a hint about how many are put around the prompt."""
    limit: int
    """Tokens that the author may write, at most."""


@dataclass(frozen=True)
class UpdatePlan:
    row: Algorithm
    prompts: int
    asks: Sequence[Ask]
    times: int = 1
    """How many updates it stands for: itself, and those after it that are not looked at."""

    def of(self, author: Author) -> list[Ask]:
        return [ask for ask in self.asks if ask.author is author]


def planned(
    algorithm: AnyAlgorithm, config: RolloutConfig, updates: int, seed: int, samples: int, turns: int = 1
) -> Iterator[UpdatePlan]:
    """The updates of a run, as its own draws will have them; of a long run evenly spread ones.

    Which rows run, which episodes have a roll-in and how long it may be are known before the run. That a text
    ends early is not, nor is which prompts open a gate or how much help they are found to need: all are taken to ask
    for as much as they may, and prompts to come again as late as they can, so that no author is asked for more than is
    said here. Of roll-ins whose author's texts are known, such as references, the length is that of the longest text
    that fits.

    Args:
        samples: of the training data; 0 where that is not there.
        turns: of a dialogue at most; 1 without an environment.
    """
    unvalued = samples or updates * config.episodes
    step = math.ceil(updates * config.episodes / _MOST_EPISODES)
    for update in range(0, updates, step):
        times = min(step, updates - update)
        row = algorithm.at(update, update / updates, seed)
        prompts = config.prompts(row)
        # Where a pass over the data ends and the next one begins, a prompt may come twice before its value is known.
        twice = unvalued * (2 + prompts // max(samples, 1))
        new = prompts if unvalued >= prompts else min(prompts, twice)
        asks = update_asks(row, config, prompts, update, update / updates, seed, new, turns)
        if row.start_value is not None:
            unvalued = max(unvalued - times * prompts, 0)
        yield UpdatePlan(row, prompts, asks, times)


def update_asks(
    row: Algorithm,
    config: RolloutConfig,
    prompts: int,
    update: int,
    progress: float,
    seed: int,
    new: int | None = None,
    turns: int = 1,
) -> list[Ask]:
    """What the authors are asked for in one update, at most.

    Args:
        new: for how many of the prompts the start is asked, see `Algorithm.start_value`; default: all.
    """
    drafts = [Draft(_UNREAD, [], episode_seed(seed, update, number)) for number in range(prompts)]
    if row.from_pairs:
        pairs, author = enumerate(members(drafts, 2)), row.script.rollout
        return [Ask(author, i // 2, draft.seed, 0, config.limit(author)) for i, draft in pairs]
    alone: list[Ask] = []
    if row.help.looks_first:
        apart = [draft.branch(draft.seed) for draft in drafts]
        alone = _Update(row.alone, config, progress, prompts, turns).asks(apart)
    shown = examples_apart(drafts) if row.examples is Author.GUIDE else []
    whole = config.limit(Author.GUIDE)
    examples = [Ask(Author.GUIDE, number, draft.seed, 0, whole) for number, draft in enumerate(shown)]
    texts = 0 if row.start_value is None else row.start_value.texts
    start = [
        Ask(Author.POLICY, n, d.seed, 0, config.limit(Author.POLICY)) for n, d in enumerate(drafts[:new])
    ] * texts
    return alone + _Update(row, config, progress, prompts, turns).asks(drafts) + examples + start


def _in_need(row: Algorithm) -> Algorithm:
    """The row where every gate is open and all help is the longest."""
    law = row.help.length
    longest = law if law.by == "law" else law.model_copy(update={"by": "trial"})
    return row.but(help=row.help.model_copy(update={"gate": None, "length": longest}))


def evaluation_asks(author: Author, config: RolloutConfig, prompts: int, turns: int = 1) -> list[Ask]:
    """What an evaluation asks an author for: one whole text, or dialogue, for each prompt."""
    limit, whole = config.limit(author), config.max_response_tokens
    return [
        Ask(author, number, 0, whole * (turn > 0), limit)
        for number in range(prompts)
        for turn in range(turns)
    ]


@dataclass(frozen=True)
class _Update:
    """The requests for a row's texts or dialogues; the lengths of dialogues are in turns."""

    row: Algorithm
    config: RolloutConfig
    progress: float
    prompts: int
    turns: int

    def asks(self, drafts: Sequence[Draft]) -> list[Ask]:
        row, author = self.row, self.row.script.rollin
        begun = begun_apart(drafts, row)
        found, switches = self._hints(begun), [0] * len(begun)
        if author is not None:
            # Turns have no limit of their own.
            switches = self._amounts(begun, self.config.limit(author) if self.turns == 1 else self.turns)
            for i, (draft, switch) in enumerate(zip(begun, switches, strict=True)):
                found += self._of(author, i * self.prompts // len(begun), draft.seed, 0, switch)
        episodes = finished_apart(begun, row)
        begun_by = [switch for switch in switches for _ in range(len(episodes) // len(begun))]
        finishing, branching = list[Ask](), list[Ask]()
        for i, (episode, switch) in enumerate(zip(episodes, begun_by, strict=True)):
            # Nothing is written after a whole text. Where the past decides who is helped nobody may be, and then all
            # texts are written.
            if not (switch and row.help.length.whole and (row.foreseen or row.help.looks_first)):
                place = i * self.prompts // len(episodes)
                # Another's beginning may be drawn again where its text is short, and the policy's never is.
                sure = switch if author is Author.POLICY else 0
                before = switch if self.turns == 1 else sure
                finishing += self._of(row.script.rollout, place, episode.seed, before, self._most - sure)
                branching += self._branches(episode, place, before)
        return found + finishing * row.tries + branching

    def _branches(self, episode: Draft, place: int, begun: int) -> list[Ask]:
        """What branches off from an episode of the greatest length, of which so much is a roll-in."""
        author, branches = self.row.script.rollout, self.row.branches
        if branches is None:
            return []
        authors = [self.row.script.rollin or author] * begun + [author] * (self._most - begun)
        return [
            ask
            for point in branch_points(authors, branches.every)
            for text in branches_of(episode, point, branches.texts)
            for ask in self._of(author, place, text.seed, point, self._most - point)
        ]

    def _hints(self, begun: Sequence[Draft]) -> list[Ask]:
        hint, limit = self.row.script.hint, self.config.max_hint_tokens
        if hint is None or hint.author not in (Author.GUIDE, Author.POLICY):
            return []
        around = 0 if hint.ask is None else limit + hint.reads_reference * self.config.max_response_tokens
        seeds = [seeding.derive(draft.seed, "hint") for draft in begun]
        return [
            Ask(hint.author, i * self.prompts // len(begun), seed, around, amount)
            for i, (seed, amount) in enumerate(zip(seeds, self._amounts(begun, limit), strict=True))
            if amount
        ]

    def _amounts(self, begun: Sequence[Draft], length: int) -> list[int]:
        return draw_switches(begun, _in_need(self.row), self.progress, lambda chosen: [length] * len(chosen))

    @property
    def _most(self) -> int:
        return self.config.max_response_tokens if self.turns == 1 else self.turns

    def _of(self, author: Author, sample: int, seed: int, written: int, amount: int) -> list[Ask]:
        """What an author is asked for who goes on by an amount of tokens, or of turns.

        All turns but a dialogue's first may have a whole response before them, and each may be as long as a response:
        what stands after the text that ends a turn is dropped.
        """
        limit, whole = self.config.limit(author), self.config.max_response_tokens
        if self.turns > 1:
            numbers = range(written, written + amount)
            return [Ask(author, sample, seed, whole * (number > 0), limit) for number in numbers]
        return [Ask(author, sample, seed, written, min(amount, limit))] if amount else []


_UNREAD = Sample("")
"""Draws depend on seeds and not on texts."""
