"""Where a group's own texts open the gate, those that are to have help are written again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hinted_texts import PLAIN, SAMPLES, Watched, collector, of_letters, read, tiered
from torch import Tensor
from visits import LIMIT, SUCCESS, Ends, begun, collect, longer_than

from rlgf.algorithms import Algorithm
from rlgf.algorithms.catalog import BREAD, GHPO, HINTED_GRPO, LUFFY, SCAF_GRPO
from rlgf.algorithms.reference_rows import HPT
from rlgf.errors import UserError
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.record import PromptRecord
from rlgf.types import Author, Rollout, Sample, Scored
from toys import FavouringGuide


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


def test_a_group_that_fails_is_written_again_after_a_hint() -> None:
    row = HINTED_GRPO.changed(script={"hint": {"author": "reference", "template": PLAIN}})

    def pay(rollout: Rollout) -> Tensor:
        assert not rollout.hinted.any()
        return (rollout.group % 2).float()

    maker = collector()
    rollout = maker.collect(SAMPLES, row, rewards=pay)
    assert torch.equal(rollout.hinted, rollout.group % 2 == 0)
    passed = rollout.group % 2 == 1
    alone = collector().collect(SAMPLES, row.alone)
    assert alone.hints is None
    kept = [text for text, kept in zip(rollout.texts, passed.tolist(), strict=True) if kept]
    assert kept == [text for text, kept in zip(alone.texts, passed.tolist(), strict=True) if kept]


@pytest.mark.parametrize(
    ("needed", "hint"), [(1, "dc"), (2, "dc"), (3, "dcba"), (5, "dcbadc"), (9, "dcbadc")]
)
def test_a_group_is_written_after_the_first_tier_that_helps(needed: int, hint: str) -> None:
    """Of the reference's 9 tokens, the end included, the three tiers give 2, 4 and 6."""
    pay, row = Watched(needed), tiered(GHPO)
    rollout = collector().collect(SAMPLES, row, rewards=pay)
    assert set(rollout.hints or ()) == {hint}
    assert set(rollout.own_rate.tolist()) == {0.0}
    assert read(rollout) == [of_letters(hint + sample.prompt) for sample in rollout.samples]
    tried = [["dc", "dcba", "dcbadc"][: 1 + number] for number in range(3)]
    shown = [hints[0] for hints in pay.shown if hints]
    assert shown == [None, *next(tiers for tiers in tried if tiers[-1] == hint)]


def test_each_group_goes_on_to_the_tier_that_it_needs() -> None:
    row = tiered(GHPO)

    def pay(rollout: Rollout) -> Tensor:
        needed = 2 * (rollout.group % 4)
        return (torch.tensor([len(hint or "") for hint in rollout.hints or ()]) >= needed).float()

    maker = collector()
    own = maker.collect(SAMPLES, row.alone)
    sampled = maker.sampled[Author.POLICY]
    rollout = maker.collect(SAMPLES, row, rewards=pay)
    found = [len(hint or "") for hint in rollout.hints or ()]
    assert found == [2 * (group % 4) for group in rollout.group.tolist()]
    assert rollout.texts[:4] == own.texts[:4], "a group of which some succeed stays as it was"
    # In three tiers 6, 4 and 2 groups of 4 are written again.
    again = maker.sampled[Author.POLICY] - 2 * sampled
    assert 4 * 12 <= again <= 4 * 12 * maker.config.max_response_tokens


def test_a_tier_that_tells_no_more_is_passed_over() -> None:
    pay = Watched(9)
    rollout = collector(max_hint_tokens=2).collect(SAMPLES, tiered(GHPO), rewards=pay)
    assert set(rollout.hints or ()) == {"dc"}
    assert len(pay.shown) == 2, "the group's own texts, and those after the first of three tiers"


def test_only_the_members_that_have_hints_climb() -> None:
    pay, row = Watched(3), tiered(SCAF_GRPO)
    maker = collector()
    own = maker.collect(SAMPLES, row.alone)
    rollout = maker.collect(SAMPLES, row, rewards=pay)
    assert rollout.hinted.view(-1, 4).sum(dim=1).tolist() == [1] * len(SAMPLES)
    assert {hint for hint in rollout.hints or () if hint} == {"dcba"}
    for i in (~rollout.hinted).nonzero().squeeze(1).tolist():
        assert rollout.texts[i] == own.texts[i]
    # One text a tier is judged, and not the rest of its group.
    assert [len(hints) for hints in pay.shown] == [4 * len(SAMPLES), len(SAMPLES), len(SAMPLES)]


@pytest.mark.parametrize(
    "row",
    [
        HINTED_GRPO.changed(script={"hint": {"author": "reference", "template": PLAIN}}),
        tiered(GHPO),
        tiered(SCAF_GRPO),
        BREAD.changed(script={"rollin": "reference"}),
    ],
    ids=lambda row: row.name,
)
def test_help_that_helps_nothing_leaves_chances_as_they_are(row: Algorithm) -> None:
    """Texts whose last letter has a chance of one in four, whatever comes before it."""
    maker = collector(min_response_tokens=6)
    head = maker.policy.model.get_output_embeddings().weight
    with torch.no_grad():
        head.zero_()
    rollout = maker.collect(SAMPLES * 20, row, rewards=lambda found: (found.response_ids[:, 5] == 0).float())
    helped = rollout.hinted | rollout.written_by(Author.REFERENCE).any(dim=1)
    again = (rollout.response_ids[helped, 5] == 0).float()
    # Tries are over where one succeeds, so it is no less than the chance of a single one.
    assert len(again) >= 40
    assert again.mean() > 0.15


def test_columns_are_tiers_and_each_may_be_given_in_shares() -> None:
    samples = [replace(sample, columns={"idea": "d", "plan": "dcb", "empty": ""}) for sample in SAMPLES]
    row = tiered(SCAF_GRPO, author=None, shares=[], columns=["idea", "plan"])
    for needed, hint in ((1, "d"), (2, "dcb"), (9, "dcb")):
        rollout = collector().collect(samples, row, rewards=Watched(needed))
        assert {hint for hint in rollout.hints or () if hint} == {hint}
    pay = Watched(9)
    both = tiered(GHPO, author=None, shares=[0.5, 1.0], columns=["idea", "empty", "plan"])
    rollout = collector().collect(samples, both, rewards=pay)
    assert [hints[0] for hints in pay.shown] == [None, "d", "dc", "dcb"], "empty and equal ones help nobody"
    with pytest.raises(
        UserError, match=r"column 'plan', and a sample has none .* set 'script\.hint\.columns'"
    ):
        collector().collect(SAMPLES, row.changed(script={"hint": {"columns": ["hint", "plan"]}}))
