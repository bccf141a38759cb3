"""Where roll-ins of a guide end: anywhere in what it wrote, however early it ended."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
from switches import LIMIT, MANY, collect, is_uniform, sure, switches

from rlgf.algorithms.catalog import AGGREVATED, GUIDED_GRPO, LUFFY, PPO_PLUS_PLUS
from rlgf.errors import UserError
from rlgf.guides import EnsembleGuide, ReplayGuide, ReplayGuideConfig, Request
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.types import Author, Completion, Sample
from toys import FavouringGuide


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
