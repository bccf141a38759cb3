"""Where roll-ins end: each state of a text is visited as often as the switch law says, whatever its length."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from scipy.stats import chisquare

from rlgf.algorithms import Algorithm, RollinLength, algorithm_from
from rlgf.algorithms.catalog import AGGREVATED, DR_PO, GUIDED_GRPO, LUFFY, PPO_PLUS_PLUS, REVERSE_CURRICULUM
from rlgf.algorithms.spec import merged
from rlgf.errors import UserError
from rlgf.guides import EnsembleGuide, Guide, ReplayGuide, ReplayGuideConfig, Request
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.writers import Draft, Passage
from rlgf.schedules import Schedule, constant
from rlgf.types import Author, Completion, Rollout, Sample
from toys import FavouringGuide, letter_gpt

SEEDS = 600
MANY = 2000
LIMIT = 12


@pytest.fixture(scope="module")
def policy() -> LanguageModel:
    return letter_gpt()


class Ends:
    """A policy that ends every text at once: what it writes has no part in where roll-ins end."""

    def write(self, drafts: Sequence[Draft], limits: Sequence[int]) -> list[Passage]:
        return [Passage([4], [-1.0], finished=True) for _ in drafts]


def collect(
    policy: LanguageModel,
    row: Algorithm,
    texts: Sequence[str] = ("",),
    guide: Guide | None = None,
    *,
    group_size: int = 1,
    progress: float = 0.0,
    limit: int = LIMIT,
    samples: int = SEEDS,
    **options: Any,
) -> Rollout:
    """Groups as many as there are samples, whose references are the texts in turns."""
    config = RolloutConfig(max_prompt_tokens=4, max_response_tokens=limit, **options)
    maker = Collector(policy, guide, config, seed=0)
    if row.script.rollin is not Author.POLICY:
        maker.writers = {**maker.writers, Author.POLICY: Ends()}
    asked = [Sample("ab", (texts[i % len(texts)],)) for i in range(samples)]
    sized = row.model_copy(update={"group_size": group_size})
    return maker.collect(asked, sized, progress=progress)


def sure(row: Algorithm, **changes: Any) -> Algorithm:
    return row.changed(**merged({"help": {"probability": 1.0}}, changes))


def switches(rollout: Rollout, author: Author, group_size: int = 1) -> list[int]:
    """How many tokens each roll-in has, one entry for each group that shares it."""
    counts = rollout.written_by(author).sum(dim=1).view(-1, group_size)
    assert (counts == counts[:, :1]).all()
    return counts[:, 0].tolist()


def is_uniform(found: Sequence[int], first: int, last: int) -> None:
    """Nothing but first..last, and each as often as chance has it (chi-square, one false alarm in 10,000)."""
    counts = Counter(found)
    assert set(counts) == set(range(first, last + 1))
    assert first == last or chisquare([counts[h] for h in range(first, last + 1)]).pvalue > 1e-4


# The law itself.


@pytest.mark.parametrize(
    ("law", "length", "progress", "positions"),
    [
        (RollinLength(), 5, 0.0, [1, 2, 3, 4]),
        (RollinLength(), 2, 0.0, [1]),
        (RollinLength(), 1, 0.0, []),
        (RollinLength(), 0, 0.0, []),
        (RollinLength(high=constant(0.0)), 10, 0.0, []),
        (RollinLength(low=constant(1.0)), 10, 0.0, [9]),
        # 0.07 * 100 is a rounding above 7, 0.29 * 100 one below 29.
        (RollinLength(low=constant(0.07), high=constant(0.07)), 100, 0.0, [7]),
        (RollinLength(low=constant(0.29), high=constant(0.29)), 100, 0.0, [29]),
        (RollinLength(low=Schedule(start=0.8, end=0.0), high=Schedule(start=1.0, end=0.4)), 10, 0.0, [8, 9]),
        (
            RollinLength(low=Schedule(start=0.8, end=0.0), high=Schedule(start=1.0, end=0.4)),
            10,
            1.0,
            [1, 2, 3, 4],
        ),
    ],
)
def test_the_law_is_uniform_between_two_shares_of_a_text(
    law: RollinLength, length: int, progress: float, positions: list[int]
) -> None:
    assert list(law.positions(length, progress)) == positions


def test_the_coin_leaves_the_other_episodes_without_a_rollin(policy: LanguageModel) -> None:
    row = PPO_PLUS_PLUS.changed(help={"probability": 0.6})
    found = switches(collect(policy, row, guide=FavouringGuide("a", 1.0)), Author.GUIDE)
    assert found.count(0) == pytest.approx(0.4 * SEEDS, abs=48)  # four standard deviations
    is_uniform([h for h in found if h], 1, LIMIT - 1)


def test_a_response_of_one_token_has_no_rollin(policy: LanguageModel) -> None:
    found = switches(collect(policy, sure(DR_PO), ["aaa"], limit=1, samples=40), Author.REFERENCE)
    assert set(found) == {0}


# Texts whose length is known.


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "in groups"])
@pytest.mark.parametrize("letters", [1, 6, LIMIT - 1, LIMIT, 3 * LIMIT])
def test_a_reference_is_cut_anywhere_in_its_own_length(
    policy: LanguageModel, letters: int, grouped: bool
) -> None:
    row = sure(GUIDED_GRPO if grouped else DR_PO, script={"rollin": "reference"})
    size = 2 if grouped else 1
    samples = MANY if letters == 6 else SEEDS
    rollout = collect(policy, row, ["d" * letters], group_size=size, samples=samples)
    assert len(rollout) == size * samples
    # The end counts as a token, and a longer text ends at the limit.
    is_uniform(switches(rollout, Author.REFERENCE, size), 1, min(letters + 1, LIMIT) - 1)
    assert all(
        text.startswith("d" * h)
        for text, h in zip(rollout.texts[::size], switches(rollout, Author.REFERENCE, size), strict=True)
    )


def test_an_empty_reference_has_no_state_to_begin_from(policy: LanguageModel) -> None:
    assert set(switches(collect(policy, sure(DR_PO), [""], samples=40), Author.REFERENCE)) == {0}


def test_each_of_several_references_is_cut_in_its_own_length(policy: LanguageModel) -> None:
    config = RolloutConfig(max_prompt_tokens=4, max_response_tokens=LIMIT)
    maker = Collector(policy, None, config, seed=0)
    maker.writers = {**maker.writers, Author.POLICY: Ends()}
    rollout = maker.collect([Sample("ab", ("aaa", "bbbbbbb"))] * SEEDS, sure(DR_PO))
    found = defaultdict(list)
    for text, switch in zip(rollout.texts, switches(rollout, Author.REFERENCE), strict=True):
        found[text[0]].append(switch)
    is_uniform(found["a"], 1, 3)
    is_uniform(found["b"], 1, 7)


def test_references_of_different_lengths_stand_in_one_batch(policy: LanguageModel) -> None:
    rollout = collect(policy, sure(DR_PO), ["a" * 3, "b" * 9])
    found = switches(rollout, Author.REFERENCE)
    is_uniform(found[::2], 1, 3)
    is_uniform(found[1::2], 1, 9)


@pytest.mark.parametrize(
    ("letters", "progress", "positions"),
    [
        (12, 0.0, {12}),
        (12, 0.25, {9}),
        (12, 0.5, {6}),
        (12, 0.75, {3}),
        (12, 1.0, {0}),
        (60, 0.5, {22, 23, 24}),
    ],
)
def test_the_reverse_curriculum_goes_through_the_text_itself(
    policy: LanguageModel, letters: int, progress: float, positions: set[int]
) -> None:
    rollout = collect(policy, REVERSE_CURRICULUM, ["a" * letters], limit=48, progress=progress, samples=40)
    assert set(switches(rollout, Author.REFERENCE)) == positions


def replay(folder: Path, *texts: str, finished: bool = True) -> ReplayGuide:
    file = folder / "recorded.jsonl"
    rows = [{"prompt": "ab", "completion": text, "finished": finished} for text in texts]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ReplayGuide(ReplayGuideConfig(file=file))


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "in groups"])
@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("letters", [2, 6, 3 * LIMIT])
def test_a_recorded_text_is_cut_anywhere_in_its_own_length(
    policy: LanguageModel, tmp_path: Path, letters: int, finished: bool, grouped: bool
) -> None:
    row, size = (sure(GUIDED_GRPO), 2) if grouped else (sure(PPO_PLUS_PLUS), 1)
    guide = replay(tmp_path, "c" * letters, finished=finished)
    rollout = collect(policy, row, guide=guide, group_size=size)
    is_uniform(switches(rollout, Author.GUIDE, size), 1, min(letters + finished, LIMIT) - 1)


def test_a_recorded_member_of_an_ensemble_is_known_too(policy: LanguageModel, tmp_path: Path) -> None:
    guide = EnsembleGuide(
        {"recorded": (replay(tmp_path, "cccccc"), 1.0), "live": (FavouringGuide("a", 1.0), 1.0)}
    )
    rollout = collect(policy, sure(PPO_PLUS_PLUS), guide=guide)
    found = defaultdict(list)
    for name, switch in zip(rollout.guides, switches(rollout, Author.GUIDE), strict=True):
        found[name].append(switch)
    is_uniform(found["recorded"], 1, 6)
    is_uniform(found["live"], 1, LIMIT - 1)


def test_a_recording_is_looked_up_for_episodes_with_a_rollin_alone(
    policy: LanguageModel, tmp_path: Path
) -> None:
    guide = replay(tmp_path, "ccc")
    maker = Collector(policy, guide, RolloutConfig(max_response_tokens=LIMIT), seed=0)
    row = PPO_PLUS_PLUS.changed(help={"probability": 0.0})
    assert not maker.collect([Sample("not recorded")], row).written_by(Author.GUIDE).any()
    with pytest.raises(UserError, match="has no completion of 'not recorded'"):
        maker.collect([Sample("not recorded")], sure(row))


# Texts that are written as they are asked for.

TOKENS = {"a": 2, "b": 5, "c": LIMIT, "d": LIMIT + 1}
"""How many tokens per text has, its end included, by its first letter."""


class Ending:
    """Writes texts of four lengths in turns, as far as it is asked, and ends them."""

    def __init__(self, own_limit: int = 10**6, *, hands_over_ids: bool = False) -> None:
        self.own_limit = own_limit
        self.hands_over_ids = hands_over_ids
        self.asked = 0

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Completion:
        self.asked += 1
        letter = "abcd"[request.seed % 4]
        whole = letter * (TOKENS[letter] - 1)
        limit = min(request.max_new_tokens, self.own_limit)
        text, finished = whole[:limit], limit > len(whole)
        ids = (*("abcd".index(x) for x in text), *([4] if finished else []))
        return Completion(text, finished, token_ids=ids if self.hands_over_ids else None)


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "in groups"])
@pytest.mark.parametrize("hands_over_ids", [False, True], ids=["text", "ids"])
def test_a_guide_that_ends_early_is_cut_anywhere_in_what_it_wrote(
    policy: LanguageModel, grouped: bool, hands_over_ids: bool
) -> None:
    row, size = (sure(GUIDED_GRPO), 2) if grouped else (sure(PPO_PLUS_PLUS), 1)
    guide = Ending(hands_over_ids=hands_over_ids)
    rollout = collect(policy, row, guide=guide, group_size=size, samples=MANY)
    assert guide.asked == MANY, "the second draw asks nobody"
    found = defaultdict(list)
    for text, switch in zip(rollout.texts[::size], switches(rollout, Author.GUIDE, size), strict=True):
        found[text[0]].append(switch)
    for letter, tokens in TOKENS.items():
        is_uniform(found[letter], 1, min(tokens, LIMIT) - 1)
    by_guide = rollout.written_by(Author.GUIDE)
    assert not (rollout.response_ids[by_guide] == policy.end_id).any(), "an end that is taken back is gone"


def test_a_guide_with_a_limit_of_its_own_is_cut_anywhere_in_what_it_wrote(policy: LanguageModel) -> None:
    rollout = collect(policy, sure(PPO_PLUS_PLUS), guide=Ending(own_limit=5))
    found = [
        switch
        for text, switch in zip(rollout.texts, switches(rollout, Author.GUIDE), strict=True)
        if text[0] in "cd"
    ]
    is_uniform(found, 1, 5)


def test_a_guide_that_ends_early_ends_a_share_of_its_own_text(policy: LanguageModel) -> None:
    row = sure(PPO_PLUS_PLUS, help={"length": {"low": 0.5}})
    rollout = collect(policy, row, guide=Ending())
    of_five = [
        switch
        for text, switch in zip(rollout.texts, switches(rollout, Author.GUIDE), strict=True)
        if text[0] == "b"
    ]
    is_uniform(of_five, 3, 4)  # of 5 tokens, the end included


def test_a_guide_that_says_nothing_leaves_the_prompt(policy: LanguageModel) -> None:
    class Silent:
        def write(self, requests: Sequence[Request]) -> list[Completion]:
            return [Completion("", finished=True) for _ in requests]

    rollout = collect(policy, sure(PPO_PLUS_PLUS), guide=Silent(), samples=40)
    assert set(switches(rollout, Author.GUIDE)) == {0}
    assert (rollout.lengths > 0).all()


def test_the_guide_writes_no_more_than_it_may(policy: LanguageModel) -> None:
    """As in the original's TL;DR, where its text is of at most 20 tokens."""
    guide = FavouringGuide("a", 1.0)
    began = collect(policy, sure(PPO_PLUS_PLUS), guide=guide, max_guide_tokens=5)
    is_uniform(switches(began, Author.GUIDE), 1, 4)
    finished = collect(policy, sure(AGGREVATED), guide=guide, max_guide_tokens=5, samples=200)
    by_guide = finished.written_by(Author.GUIDE).sum(dim=1)
    by_policy = finished.written_by(Author.POLICY).sum(dim=1)
    assert (by_guide == (LIMIT - by_policy).clamp(max=5))[~finished.finished].all()
    assert max(request.max_new_tokens for request in guide.requests) == 5


# Members of a group.


@pytest.mark.parametrize("members", [1, 3, 4])
def test_exactly_so_many_members_of_each_group_have_a_rollin(policy: LanguageModel, members: int) -> None:
    row = LUFFY.changed(help={"members": members})
    rollout = collect(policy, row, guide=FavouringGuide("a", 1.0), group_size=4, limit=2)
    guided = (rollout.written_by(Author.GUIDE).sum(dim=1) > 0).view(-1, 4)
    assert (guided.sum(dim=1) == members).all()
    if members < 4:
        # Each place in a group as often: losses that take the first of equals favour nobody.
        assert chisquare(guided.sum(dim=0).tolist()).pvalue > 1e-4


def test_a_whole_text_ends_its_episode(policy: LanguageModel) -> None:
    rollout = collect(policy, LUFFY, guide=Ending(), group_size=4, samples=200)
    by_guide = rollout.written_by(Author.GUIDE)
    rows = by_guide.any(dim=1).nonzero().squeeze(1).tolist()
    assert len(rows) == 200
    for i in rows:
        tokens = TOKENS[rollout.texts[i][0]]
        assert int(by_guide[i].sum()) == int(rollout.lengths[i]) == min(tokens, LIMIT)
        assert bool(rollout.finished[i]) == (tokens <= LIMIT)
        if tokens <= LIMIT:
            assert rollout.response_ids[i, tokens - 1] == policy.end_id
    others = ~by_guide.any(dim=1)
    assert (rollout.written_by(Author.POLICY).sum(dim=1)[others] == rollout.lengths[others]).all()


def test_a_whole_text_can_be_the_reference_or_cut_short(policy: LanguageModel) -> None:
    row = LUFFY.changed(script={"rollin": "reference"})
    rollout = collect(policy, row, ["abc", "d" * 99], group_size=2, samples=40)
    rows = rollout.written_by(Author.REFERENCE).any(dim=1)
    assert set(rollout.lengths[rows].tolist()) == {4, LIMIT}
    short = collect(policy, LUFFY, guide=Ending(own_limit=3), group_size=2, samples=40)
    rows = short.written_by(Author.GUIDE).any(dim=1)
    assert set(short.lengths[rows].tolist()) == {2, 3}, "nothing is written after it"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "luffy", "help": {"probability": 0.5}}, "no 'help.probability'; or 'help.members: null'"),
        ({"base": "luffy", "help": {"shared": True}}, "'help.shared: false'"),
        ({"base": "grpo", "help": {"members": 1}}, "'script.rollin' must name who writes it"),
        ({"base": "luffy", "help": {"members": 0}}, "greater than or equal to 1"),
        ({"base": "luffy", "help": {"length": {"low": 0.5}}}, "leave 'low', 'high' and 'by' out"),
        ({"base": "luffy", "help": {"length": {"by": "trial"}}}, "leave 'low', 'high' and 'by' out"),
        ({"base": "luffy", "help": {"members": 5}}, "'help.members' 5 exceeds 'group_size' 4"),
        (
            {"base": "aggrevated", "help": {"length": {"whole": True}}},
            "set 'script.rollin' to guide or reference",
        ),
        ({"base": "guided-grpo", "help": {"length": {"whole": True}}}, "in groups 'help.shared: false'"),
        ({"base": "bread", "help": {"success": None}}, "set 'help.success' to what a text has to earn"),
        ({"base": "adaback", "help": {"success": None}}, "'help.length.by' counts successes"),
        ({"base": "bread", "help": {"gate": {"looks_at": "record"}}}, "set 'help.gate: {looks_at: group}'"),
        ({"base": "adaback", "help": {"shared": False}}, "set 'help.shared: true'"),
        ({"base": "adaback", "script": {"rollin": "policy"}}, "'script.rollin' of guide or reference"),
        ({"base": "bread", "help": {"gate": {"low": 0.5}}}, "'low' 0.5 must not exceed 'high' 0"),
        ({"base": "bread", "help": {"gate": {"failures": 3}}}, "set 'looks_at: record' and no 'high'"),
        ({"base": "bc", "help": {"success": 0.5}}, "needs an 'advantage' that reads a reward"),
    ],
)
def test_a_rollin_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        algorithm_from(changes)


def test_a_coin_can_take_the_place_of_the_members() -> None:
    changed = algorithm_from({"base": "luffy", "help": {"members": None, "probability": 0.25}})
    assert changed == LUFFY.changed(help={"members": None, "probability": 0.25})
    assert isinstance(changed, Algorithm)
    assert changed.help.members is None
