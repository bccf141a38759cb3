"""The record of each prompt, and help that depends on it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

import pytest
import torch
from hinted_texts import SAMPLES as HINTED
from hinted_texts import Watched, collector, tiered
from scipy.stats import chisquare
from visits import LIMIT, SUCCESS, begun, collect, longer_than

from rlgf.algorithms import Help, RollinLength, algorithm_from
from rlgf.algorithms.catalog import GHPO, LUFFY
from rlgf.algorithms.reference_rows import ADABACK
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.record import Attempt, PromptHistory, PromptRecord, lengths_between, succeeded
from rlgf.run.progress import Progress
from rlgf.types import Author, Sample, Scored
from training_toys import build


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


def test_what_earns_just_enough_succeeds_in_the_record_as_in_the_group() -> None:
    help, least = Help(success=0.9), torch.tensor([0.9, 0.89])
    assert succeeded(least, help).tolist() == [True, False]
    after = PromptHistory().after([Attempt(reward) for reward in least.tolist()], help)
    assert after.successes == 1
    assert after.solved


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
        assert lengths_between(length, share, None) == range(min(tokens + 1, length - 1), length)
        assert lengths_between(length, None, share) == range(max(tokens, 1))
        if tokens:
            assert list(lengths_between(length, (tokens - 1) / length, share)) == []
            assert lengths_between(length, 0.0, share) == range(1, tokens)
    assert lengths_between(length, None, None) == range(length)


@pytest.mark.parametrize("threshold", range(LIMIT))
def test_a_search_finds_the_shortest_beginning_and_follows_it(threshold: int) -> None:
    """The number of tokens that it takes is known here; later none are needed any more."""
    help = Help(success=SUCCESS, length=RollinLength(by="record"))
    random = torch.Generator().manual_seed(threshold)

    def visit(history: PromptHistory, needed: int) -> PromptHistory:
        among = lengths_between(LIMIT, history.low, history.high) or range(LIMIT)
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


def test_a_bound_is_not_loosened_by_what_says_less() -> None:
    """Several groups of one update may have the same prompt, each with a beginning of its own."""
    help = Help(success=SUCCESS, length=RollinLength(by="record"))
    enough = PromptHistory(low=0.1, high=0.9)
    for tokens in (3, 8):
        enough = enough.after([Attempt(1.0, tokens, 10)], help)
    assert (enough.low, enough.high) == (0.1, 0.3)
    short = PromptHistory(low=0.1, high=0.9)
    for tokens in (6, 2):
        short = short.after([Attempt(0.0, tokens, 10)], help)
    assert (short.low, short.high) == (0.6, 0.9)
    assert short.after([Attempt(1.0, 5, 10)], help)[-4:-2] == (None, 0.5), "the older one goes"
    assert enough.after([Attempt(0.0, 4, 10)], help)[-4:-2] == (0.4, None)


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


def test_a_group_that_has_just_failed_is_not_left_without_a_beginning(policy: LanguageModel) -> None:
    row = ADABACK.changed(group_size=2, help={"gate": {"looks_at": "group"}})
    for high in (0.0, 1 / LIMIT):
        record = PromptRecord(dict.fromkeys(range(40), PromptHistory(high=high)))
        assert set(begun(collect(policy, row, longer_than(1), record, reference="dd"), row)) == {1}
    found = begun(collect(policy, row, longer_than(1), samples=400), row)
    assert set(found) == set(range(1, LIMIT))


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


def test_the_record_knows_how_much_of_the_reference_it_took() -> None:
    row = tiered(GHPO)
    rollout = collector().collect(HINTED, row, rewards=Watched(3), index=range(len(HINTED)))
    history = PromptRecord().after(Scored(rollout, Watched(3)(rollout)), row)[0]
    assert (history.rate, history.solved, history.help) == (0.0, False, pytest.approx(4 / 9))


def test_what_the_guide_finishes_the_policy_has_not_solved() -> None:
    trainer = build("aggrevated", changes={"help": {"probability": 0.8, "success": 0.5}}, guide="self")
    rollout = trainer.collect()
    record = PromptRecord().after(Scored(rollout, torch.ones(len(rollout))), trainer.row())
    others = (rollout.authored & ~rollout.written_by(Author.POLICY)).any(dim=1)
    assert others.any()
    assert rollout.index is not None
    for place, history in record.rows.items():
        assert history.solved == (~others[rollout.index == place]).any()
    assert record.metrics()["prompts_stuck"] == 0
