"""Who will be asked for what in a run: the collector's own draws, made before anything is written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rlgf import seeding
from rlgf.algorithms import Algorithm, AnyAlgorithm
from rlgf.guides.base import Request
from rlgf.rollout.branching import branch_points, branches_of
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.help import draw_switches
from rlgf.rollout.members import (
    begun_apart,
    episode_seed,
    examples_apart,
    finished_apart,
    members,
)
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
    """Of the draft that it goes on with."""
    written: int
    """Tokens of the response that stand before it, at most; of a hint about how many are put around the prompt."""
    limit: int
    """Tokens that the author may write, at most."""


@dataclass(frozen=True)
class UpdatePlan:
    """What one update asks for."""

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
        return _finishing(members(drafts, 2), [0] * (2 * prompts), row, config, prompts)
    alone: list[Ask] = []
    if row.help.looks_first:
        alone = _asks([draft.branch(draft.seed) for draft in drafts], row.alone, config, progress, turns)
    shown = examples_apart(drafts) if row.examples is Author.GUIDE else []
    whole = config.limit(Author.GUIDE)
    examples = [Ask(Author.GUIDE, number, draft.seed, 0, whole) for number, draft in enumerate(shown)]
    texts = 0 if row.start_value is None else row.start_value.texts
    start = [
        Ask(Author.POLICY, n, d.seed, 0, config.limit(Author.POLICY)) for n, d in enumerate(drafts[:new])
    ] * texts
    return alone + _asks(drafts, row, config, progress, turns) + examples + start


def _in_need(row: Algorithm) -> Algorithm:
    """The row where every gate is open and all help is the longest."""
    law = row.help.length
    longest = law if law.by == "law" else law.model_copy(update={"by": "trial"})
    return row.but(help=row.help.model_copy(update={"gate": None, "length": longest}))


def evaluation_asks(author: Author, config: RolloutConfig, prompts: int, turns: int = 1) -> list[Ask]:
    """What an author is asked for where it is measured: one whole text, or dialogue, for each prompt."""
    asks = (Ask(author, number, 0, 0, config.limit(author)) for number in range(prompts))
    return [turn for ask in asks for turn in _in_turns(ask, turns, config)]


def first_request(config: RolloutConfig, train: Sequence[Sample]) -> Request:
    """What a remote guide is asked before a run, so that its faults show before models load."""
    longest = _longest(train)
    return Request(longest.prompt, config.max_response_tokens, seed=0, messages=longest.messages)


def scored_first(train: Sequence[Sample]) -> list[Request]:
    """The texts that a remote guide scores twice before a run that learns from its scores."""
    chosen = [train[0], _longest(train)]
    return [
        Request(one.prompt, 1, seed=0, prompt_length=len(one.prompt), messages=one.messages, scored=text)
        for one, text in zip(chosen, _SCORED_FIRST, strict=True)
    ]


def _longest(train: Sequence[Sample]) -> Sample:
    return max((train[i] for i in range(min(256, len(train)))), key=lambda sample: len(sample.prompt))


_SCORED_FIRST = (
    " The first answer is a short one, and it ends here.",
    " Another one: 12 of 37 birds, é and ü among them, flew north.",
)


def _asks(
    drafts: Sequence[Draft], row: Algorithm, config: RolloutConfig, progress: float, turns: int
) -> list[Ask]:
    begun, prompts, author = begun_apart(drafts, row), len(drafts), row.script.rollin
    switches, asks = [0] * len(begun), _hint_asks(begun, prompts, row, config, progress)
    if author is not None:
        limit = config.limit(author)
        # In a dialogue they are turns, which have no limit of their own.
        length = limit if turns == 1 else turns
        switches = draw_switches(begun, _in_need(row), progress, lambda chosen: [length] * len(chosen))
        each = len(begun) // prompts
        for i, (draft, switch) in enumerate(zip(begun, switches, strict=True)):
            if switch and turns == 1:
                asks.append(Ask(author, i // each, draft.seed, 0, switch))
            elif switch:
                asks += _in_turns(Ask(author, i // each, draft.seed, 0, limit), switch, config)
    episodes = finished_apart(begun, row)
    each = len(episodes) // len(begun)
    begun_by = [s for s in switches for _ in range(each)]
    if turns > 1:
        # Another's beginning may be drawn again where its dialogue is short, and the policy's never is.
        sure = row.script.rollin is Author.POLICY
        finishing = [
            turn
            for ask, first in zip(
                _finishing(episodes, [0] * len(episodes), row, config, prompts), begun_by, strict=True
            )
            for turn in _in_turns(ask, turns - first * sure, config)
        ]
        return (
            asks + finishing * row.tries + _branching_turns(episodes, begun_by, row, config, prompts, turns)
        )
    finishing = _finishing(episodes, begun_by, row, config, prompts)
    return asks + finishing * row.tries + _branching(episodes, finishing, row, config)


def _in_turns(ask: Ask, turns: int, config: RolloutConfig) -> list[Ask]:
    """What a dialogue asks an author for in place of one text: turns.

    All but the first may have a whole response before them, and each may be as long as a response: what stands after
    the text that ends a turn is dropped.
    """
    later = replace(ask, written=config.max_response_tokens)
    return [ask, *[later] * (turns - 1)]


def _hint_asks(
    begun: Sequence[Draft], prompts: int, row: Algorithm, config: RolloutConfig, progress: float
) -> list[Ask]:
    """The hints that somebody is to write."""
    hint, each = row.script.hint, len(begun) // prompts
    if hint is None or hint.author not in (Author.GUIDE, Author.POLICY):
        return []
    limit, around = config.max_hint_tokens, 0
    if hint.ask is not None:
        around = limit + hint.reads_reference * config.max_response_tokens
    amounts = draw_switches(begun, _in_need(row), progress, lambda chosen: [limit] * len(chosen))
    return [
        Ask(hint.author, i // each, seeding.derive(draft.seed, "hint"), around, amount)
        for i, (draft, amount) in enumerate(zip(begun, amounts, strict=True))
        if amount
    ]


def _finishing(
    episodes: Sequence[Draft], switches: Sequence[int], row: Algorithm, config: RolloutConfig, prompts: int
) -> list[Ask]:
    """What the author of the roll-outs is asked for."""
    author, each, asks = row.script.rollout, len(episodes) // prompts, []
    # Where the past decides who is helped nobody may be, and then all texts are written.
    helped = row.foreseen or row.help.looks_first
    for i, (episode, switch) in enumerate(zip(episodes, switches, strict=True)):
        # Nothing is written after a whole text.
        if not (switch and row.help.length.whole and helped):
            # Another's beginning may be drawn again where its text is short, and the policy's never is.
            sure = switch if row.script.rollin is Author.POLICY else 0
            limit = min(config.max_response_tokens - sure, config.limit(author))
            asks.append(Ask(author, i // each, episode.seed, switch, limit))
    return asks


def _branching(
    episodes: Sequence[Draft], finishing: Sequence[Ask], row: Algorithm, config: RolloutConfig
) -> list[Ask]:
    """The texts that branch off from those episodes that are as long as they may be."""
    author, asks, longest = row.script.rollout, [], config.max_response_tokens
    if row.branches is None:
        return []
    drafts = {episode.seed: episode for episode in episodes}
    for ask in finishing:
        authors = [row.script.rollin or author] * ask.written + [author] * (longest - ask.written)
        for point in branch_points(authors, row.branches.every):
            limit = min(longest - point, config.limit(author))
            texts = branches_of(drafts[ask.seed], point, row.branches.texts)
            asks += [Ask(author, ask.sample, text.seed, point, limit) for text in texts]
    return asks


def _branching_turns(
    episodes: Sequence[Draft],
    begun_by: Sequence[int],
    row: Algorithm,
    config: RolloutConfig,
    prompts: int,
    turns: int,
) -> list[Ask]:
    """The dialogues that branch off from those that have as many turns as they may.

    Args:
        begun_by: how many turns of each are its roll-in.
    """
    author, asks, each = row.script.rollout, [], len(episodes) // prompts
    if row.branches is None:
        return []
    for i, (episode, drawn) in enumerate(zip(episodes, begun_by, strict=True)):
        # Another's beginning may be drawn again, and the policy's own turns then begin earlier.
        own = drawn if row.script.rollin is Author.POLICY else 0
        for turn in branch_points([Author.POLICY] * own + [author] * (turns - own), row.branches.every):
            written = config.max_response_tokens if turn else 0
            for text in branches_of(episode, turn, row.branches.texts):
                ask = Ask(author, i // each, text.seed, written, config.limit(author))
                asks += _in_turns(ask, turns - turn, config)
    return asks


_UNREAD = Sample("")
"""Draws depend on seeds and not on texts."""
