"""The record of each prompt, and help that depends on it or on a group's own texts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from rlgf.algorithms import Algorithm, Gate, Help, RollinLength, algorithm_from
from rlgf.algorithms.catalog import ADABACK, BREAD, HPT, LUFFY
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.record import Attempt, PromptHistory, PromptRecord, left
from rlgf.rollout.writers import Draft, Passage
from rlgf.run.progress import Progress
from rlgf.types import Author, Rollout, Sample, Scored
from toys import FavouringGuide, letter_gpt
from training_toys import build

LIMIT = 12
SUCCESS = 0.5


@pytest.fixture(scope="module")
def policy() -> LanguageModel:
    return letter_gpt()


class Ends:
    """A policy that ends every text at once, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def write(self, drafts: Sequence[Draft], limits: Sequence[int]) -> list[Passage]:
        self.asked += len(drafts)
        return [Passage([4], [-1.0], finished=True) for _ in drafts]


def collect(
    policy: LanguageModel,
    row: Algorithm,
    rewards: Callable[[Rollout], Tensor] | None = None,
    record: PromptRecord | None = None,
    *,
    reference: str = "d" * (LIMIT - 1),
    samples: int = 40,
    writer: Any = None,
) -> Rollout:
    config = RolloutConfig(max_prompt_tokens=4, max_response_tokens=LIMIT)
    maker = Collector(policy, FavouringGuide("d", 1.0), config, seed=0)
    maker.writers = {**maker.writers, Author.POLICY: writer or Ends()}
    asked = [Sample("ab", (reference,)) for _ in range(samples)]
    return maker.collect(asked, row, rewards=rewards, index=range(samples), record=record)


def begun(rollout: Rollout, row: Algorithm) -> list[int]:
    """How many tokens somebody else wrote, one entry for each text."""
    assert row.script.rollin is not None
    found: list[int] = rollout.written_by(row.script.rollin).sum(dim=1).tolist()
    return found


def longer_than(tokens: int) -> Callable[[Rollout], Tensor]:
    """Texts succeed after a beginning of so many tokens."""

    def rewards(rollout: Rollout) -> Tensor:
        helped = rollout.written_by(Author.GUIDE) | rollout.written_by(Author.REFERENCE)
        return (helped.sum(dim=1) >= tokens).float()

    return rewards


def test_a_visit_adds_to_the_history() -> None:
    help = Help(success=0.5)
    first = PromptHistory().after([Attempt(0.0), Attempt(0.25)], help)
    assert first == PromptHistory(visits=1, texts=2, rewards=0.25, failures=1, rate=0.0)
    helped = first.after([Attempt(1.0, 3, 12), Attempt(0.0, 3, 12)], help)
    assert helped == PromptHistory(2, 4, 1, 1.25, failures=0, rate=0.5, help=0.25)
    mixed = helped.after([Attempt(1.0, 6, 12), Attempt(0.0)], help)
    assert mixed == PromptHistory(3, 6, 2, 2.25, failures=0, rate=0.0, help=0.5), "own texts say the rate"
    own = mixed.after([Attempt(0.5), Attempt(1.0, 6, 12)], help)
    assert own == PromptHistory(4, 8, 4, 3.75, solved=True, rate=1.0, help=0.0)
    failed = own.after([Attempt(0.0)] * 2, help).after([Attempt(0.0)] * 2, help)
    assert failed == PromptHistory(6, 12, 4, 3.75, solved=True, failures=2, rate=0.0, help=0.0)


def test_own_texts_that_were_dropped_count_as_the_rate() -> None:
    row = Help(success=0.5)
    some = PromptHistory().after([Attempt(0.0, 4, 8)] * 2, row, own_rate=0.25)
    assert (some.rate, some.solved, some.failures, some.help) == (0.25, True, 0, 0.0)
    none = PromptHistory().after([Attempt(1.0, 4, 8)] * 2, row, own_rate=0.0)
    assert (none.rate, none.solved, none.failures, none.help) == (0.0, False, 0, 0.5)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 48, 1000])
def test_what_is_left_lies_between_what_failed_and_what_was_enough(length: int) -> None:
    for tokens in range(length):
        share = tokens / length
        assert left(length, share, None) == range(min(tokens + 1, length - 1), length)
        assert left(length, None, share) == range(max(tokens, 1))
        if tokens:
            assert list(left(length, (tokens - 1) / length, share)) == []
            assert left(length, 0.0, share) == range(1, tokens)
    assert left(length, None, None) == range(length)


@pytest.mark.parametrize("threshold", range(LIMIT))
def test_a_search_finds_the_shortest_beginning_and_follows_it(threshold: int) -> None:
    """The number of tokens that it takes is known here; later none are needed any more."""
    help = Help(success=SUCCESS, length=RollinLength(by="record"))
    random = torch.Generator().manual_seed(threshold)

    def visit(history: PromptHistory, needed: int) -> PromptHistory:
        among = left(LIMIT, history.low, history.high) or range(LIMIT)
        tokens = among[int(torch.randint(len(among), (), generator=random))]
        return history.after([Attempt(float(tokens >= needed), tokens, LIMIT)], help)

    history, helps = PromptHistory(), []
    for _ in range(30):
        history = visit(history, threshold)
        helps.append(history.help)
        low, high = history.low, history.high
        assert low is None or low * LIMIT < threshold
        assert high is None or high * LIMIT >= threshold
    assert threshold / LIMIT in helps
    for _ in range(30):
        history = visit(history, 0)
    assert history.help == 0.0


def test_a_run_goes_on_with_the_same_record_bit_for_bit() -> None:
    rows = {
        7: PromptHistory(3, 12, 4, sum([0.1] * 7), True, 0, 1 / 3, 2 / 7, 1 / 7, None),
        123_456: PromptHistory(),
    }
    progress = Progress(prompts=PromptRecord(rows))
    again = Progress.of(json.loads(json.dumps(asdict(progress))))
    assert again == progress
    assert isinstance(again.prompts[7], PromptHistory)


def test_an_update_is_recorded_by_the_prompts_places(policy: LanguageModel) -> None:
    row = LUFFY.changed(group_size=2, help={"success": SUCCESS})
    rollout = collect(policy, row, samples=3)
    rewards = longer_than(1)(rollout)
    record = PromptRecord().after(Scored(rollout, rewards), row)
    assert set(record.rows) == {0, 1, 2}
    for history in record.rows.values():
        # The guide's whole text succeeded, and not the policy's own.
        assert history == PromptHistory(1, 2, 1, 1.0, rate=0.0, help=1.0)
    shuffled = rollout[torch.tensor([4, 1, 5, 3, 0, 2])]
    assert PromptRecord().after(Scored(shuffled, longer_than(1)(shuffled)), row) == record
    assert record.metrics() == {
        "prompts_visited": 3.0,
        "prompts_solved": 0.0,
        "prompts_stuck": 0.0,
        "prompts_help": 1.0,
    }


def test_nothing_is_recorded_without_a_word_for_success(policy: LanguageModel) -> None:
    rollout = collect(policy, LUFFY, samples=3)
    assert PromptRecord().after(Scored(rollout, longer_than(1)(rollout)), LUFFY).metrics() == {}


@pytest.mark.parametrize(
    ("history", "positions"),
    [
        (PromptHistory(), range(LIMIT)),
        (PromptHistory(low=3 / LIMIT), range(4, LIMIT)),
        (PromptHistory(high=8 / LIMIT), range(8)),
        (PromptHistory(low=3 / LIMIT, high=8 / LIMIT), range(4, 8)),
        (PromptHistory(high=0.0), range(1)),
        (PromptHistory(low=11 / LIMIT), range(11, LIMIT)),
    ],
)
def test_a_search_draws_evenly_from_what_is_left(
    policy: LanguageModel, history: PromptHistory, positions: range
) -> None:
    row = ADABACK.changed(group_size=2)
    record = PromptRecord(dict.fromkeys(range(400), history))
    rollout = collect(policy, row, record=record, samples=400)
    found = begun(rollout, row)
    assert found[::2] == found[1::2], "a group shares its beginning"
    counts = Counter(found[::2])
    assert set(counts) == set(positions)
    assert len(positions) == 1 or chisquare([counts[place] for place in positions]).pvalue > 1e-4
    assert set(rollout.help_limit.tolist()) == {LIMIT}


def test_a_schedule_bounds_the_search(policy: LanguageModel) -> None:
    row = ADABACK.changed(group_size=2, help={"length": {"high": 0.25}})
    record = PromptRecord(dict.fromkeys(range(40), PromptHistory(low=0.5)))
    assert set(begun(collect(policy, row, record=record), row)) == {3}


@pytest.mark.parametrize("failures", [1, 3])
def test_a_prompt_that_failed_is_helped_at_its_next_visit(policy: LanguageModel, failures: int) -> None:
    gate = {"looks_at": "record", "failures": failures}
    row = ADABACK.changed(group_size=2, help={"gate": gate, "length": {"by": "law"}})
    record = PromptRecord()
    for _ in range(failures):
        rollout = collect(policy, row, record=record, samples=5)
        assert set(begun(rollout, row)) == {0}
        record = record.after(Scored(rollout, torch.zeros(10)), row)
    rollout = collect(policy, row, record=record, samples=5)
    assert min(begun(rollout, row)) >= 1
    record = record.after(Scored(rollout, torch.ones(10)), row)
    assert set(begun(collect(policy, row, record=record, samples=5), row)) == {0}


def test_a_band_of_the_pass_rate_opens_the_gate(policy: LanguageModel) -> None:
    row = ADABACK.changed(
        help={"gate": {"looks_at": "record", "low": 0.25, "high": 0.5}, "length": {"by": "law"}}
    )
    rates = [None, 0.0, 0.25, 0.4, 0.5, 0.75]
    record = PromptRecord({place: PromptHistory(rate=rate) for place, rate in enumerate(rates)})
    found = begun(collect(policy, row, record=record, samples=len(rates)), row)[::4]
    assert [tokens > 0 for tokens in found] == [False, False, True, True, True, False]


@pytest.mark.parametrize("needed", range(1, LIMIT))
@pytest.mark.parametrize("author", ["guide", "reference"])
def test_a_trial_finds_the_shortest_beginning_that_helps(
    policy: LanguageModel, needed: int, author: str
) -> None:
    row = BREAD.changed(group_size=2, script={"rollin": author})
    rollout = collect(policy, row, longer_than(needed), samples=3)
    assert set(begun(rollout, row)) == {needed}
    assert set(rollout.own_rate.tolist()) == {0.0}


def test_a_trial_stops_where_it_may_not_try_again(policy: LanguageModel) -> None:
    writer = Ends()
    row = BREAD.changed(group_size=2, help={"length": {"tries": 2}})
    rollout = collect(policy, row, longer_than(3), samples=3, writer=writer)
    assert set(begun(rollout, row)) == {3}, "6 of 1..11 are enough, then 3 of 1..5"
    assert writer.asked == 3 * 2 * (1 + 2)
    hopeless = collect(policy, row, longer_than(LIMIT + 1), samples=3)
    assert set(begun(hopeless, row)) == {9}, "6 and 9 of 1..11 have failed"


def test_a_trial_asks_the_guide_once(policy: LanguageModel) -> None:
    guide = FavouringGuide("d", 1.0)
    maker = Collector(policy, guide, RolloutConfig(max_response_tokens=LIMIT), seed=0)
    maker.collect([Sample("ab")] * 3, BREAD, rewards=lambda rollout: torch.zeros(len(rollout)))
    assert [request.max_new_tokens for request in guide.requests] == [LIMIT - 1] * 3


def by_own_letters(rollout: Rollout) -> Tensor:
    """A text succeeds that the reference wrote, or one of the policy's that begins with an a."""
    by_reference = rollout.written_by(Author.REFERENCE).any(dim=1)
    return (by_reference | (rollout.response_ids[:, 0] == 0)).float()


@pytest.mark.parametrize("high", [0.0, 0.5])
def test_whole_references_take_the_place_of_groups_that_fail(policy: LanguageModel, high: float) -> None:
    maker = Collector(policy, None, RolloutConfig(max_response_tokens=LIMIT), seed=0)
    row = HPT.changed(help={"gate": {"high": high}})
    samples = [Sample("abcd"[: 1 + i % 4], ("dd",)) for i in range(40)]
    own = maker.collect(samples, row.alone)
    rates = by_own_letters(own).view(-1, 4).mean(dim=1)
    rollout = maker.collect(samples, row, rewards=by_own_letters)
    assert rates.min() == 0 < high < rates.max() or not high
    for group, rate in enumerate(rates.tolist()):
        texts = range(4 * group, 4 * group + 4)
        if rate <= high:
            assert all(rollout.texts[i] == "dd" and rollout.finished[i] for i in texts)
            assert {rollout.own_rate[i].item() for i in texts} == {rate}
        else:
            assert [rollout.texts[i] for i in texts] == [own.texts[i] for i in texts]
            assert {rollout.own_rate[i].item() for i in texts} == {-1.0}
    # The record knows of the texts that were dropped, and not that all that is left has succeeded.
    placed = replace(rollout, index=rollout.group)
    record = PromptRecord().after(Scored(placed, by_own_letters(placed)), row)
    assert [record[place].rate for place in range(40)] == pytest.approx(rates.tolist())
    assert [record[place].solved for place in range(40)] == (rates > 0).tolist()


def test_members_that_have_no_help_stay_as_they_were(policy: LanguageModel) -> None:
    maker = Collector(policy, FavouringGuide("d", 1.0), RolloutConfig(max_response_tokens=LIMIT), seed=0)
    row = LUFFY.changed(
        help={"members": 1, "success": SUCCESS, "gate": {"high": 1.0}, "length": {"whole": False}}
    )
    own = maker.collect([Sample("ab")] * 5, row.alone)
    sampled = maker.sampled[Author.POLICY]
    rollout = maker.collect([Sample("ab")] * 5, row, rewards=lambda found: torch.zeros(len(found)))
    helped = rollout.written_by(Author.GUIDE).any(dim=1)
    assert helped.view(-1, 4).sum(dim=1).tolist() == [1] * 5
    for i in (~helped).nonzero().squeeze(1).tolist():
        assert rollout.texts[i] == own.texts[i]
    after = int((rollout.written_by(Author.POLICY).sum(dim=1))[helped].sum())
    assert maker.sampled[Author.POLICY] == 2 * sampled + after, "those are not written again"


@pytest.mark.parametrize(("rate", "tokens"), [(0.0, LIMIT - 1), (0.25, 9), (0.5, 6), (0.75, 3), (1.0, 0)])
def test_the_harder_a_prompt_the_longer_its_help(policy: LanguageModel, rate: float, tokens: int) -> None:
    help = {"gate": {"high": 1.0}, "length": {"by": "difficulty"}}
    row = BREAD.changed(help=help)

    def own(rollout: Rollout) -> Tensor:
        return (torch.arange(len(rollout)) % 4 < 4 * rate).float()

    assert set(begun(collect(policy, row, own, samples=3), row)) == {tokens}


def test_a_gate_opens_between_its_bounds() -> None:
    assert Gate().opens(0.0)
    assert not Gate().opens(0.1)
    assert not Gate().opens(None)
    assert Gate(low=0.2, high=0.6).opens(0.6)
    assert not Gate(low=0.2, high=0.6).opens(0.0)
    assert not Gate(looks_at="record", failures=2).opens(0.0, failures=1)


SAMPLES = [Sample("abca"[: 1 + i % 4], ("dcbadcba"[: 1 + i % 6],)) for i in range(16)]


def test_a_record_knows_that_texts_had_no_help() -> None:
    row = algorithm_from(
        {
            "base": "grpo",
            "script": {"hint": {"author": "reference", "reader": "guide", "template": "{hint}{prompt}"}},
            "help": {"probability": 1.0, "success": 0.5, "gate": {"looks_at": "record"}},
            "terms": {"distill": {"loss": "distillation", "weight": 0.1}},
        }
    )
    trainer = build("grpo", guide="self")
    places = range(4)
    failed = PromptRecord(dict.fromkeys(places, PromptHistory(rate=0.0, failures=1)))
    rollout = trainer.parts.collector.collect(SAMPLES[:4], row, index=places, record=failed)
    assert any(rollout.hints or ())
    history = PromptRecord().after(Scored(rollout, torch.ones(len(rollout))), row)[0]
    assert (history.solved, history.help) == (True, 0.0)
