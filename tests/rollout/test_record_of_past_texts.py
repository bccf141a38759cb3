"""The policy's own successes are kept with the record of each prompt, and come again in place of a new text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor

from rlgf.rollout.plan import planned
from rlgf.rollout.record import PastText, PromptHistory, PromptRecord
from rlgf.run.progress import Progress
from rlgf.run.trainer import Trainer
from rlgf.types import Author, Rollout, Scored
from training_toys import SAMPLES, build, perturb

PLACES = range(4)


def collected(trainer: Trainer, record: PromptRecord, update: int) -> Rollout:
    collector = trainer.parts.collector
    return collector.collect(SAMPLES[:4], trainer.row(), update, index=PLACES, record=record)


def paid(rollout: Rollout, successes: Mapping[int, float]) -> Scored:
    return Scored(rollout, torch.tensor([successes.get(place, 0.0) for place in range(len(rollout))]))


def text_of(rollout: Rollout, place: int) -> PastText:
    length = int(rollout.lengths[place])
    ids, logprobs = rollout.response_ids[place, :length], rollout.sampled_logprobs[place, :length]
    return PastText(tuple(ids.tolist()), tuple(logprobs.tolist()))


def surest(rollout: Rollout, *places: int) -> int:
    return max(places, key=lambda place: sum(text_of(rollout, place)[1]) / int(rollout.lengths[place]))


def test_the_success_that_the_policy_was_surest_of_is_kept_bit_for_bit() -> None:
    trainer = build("exgrpo")
    perturb(trainer.parts.policy.model)
    rollout = collected(trainer, PromptRecord(), 0)
    assert (rollout.author != Author.PAST).all(), "nobody has had a success yet"
    record = PromptRecord().after(paid(rollout, {1: 1.0, 2: 0.5, 3: 0.4, 9: 0.7}), trainer.row())
    kept = {0: surest(rollout, 1, 2), 2: 9}
    assert {place: row.past for place, row in record.rows.items()} == {
        place: text_of(rollout, kept[place]) if place in kept else None for place in PLACES
    }
    progress = replace(trainer.progress, prompts=record)
    assert Progress.of(json.loads(json.dumps(asdict(progress)))) == progress
    order = torch.randperm(len(rollout), generator=torch.Generator().manual_seed(0))
    shuffled = Scored(rollout[order], paid(rollout, {1: 1.0, 2: 0.5, 3: 0.4, 9: 0.7}).rewards[order])
    assert PromptRecord().after(shuffled, trainer.row()) == record


def test_it_stands_in_place_of_one_new_text_until_all_new_ones_succeed() -> None:
    trainer = build("exgrpo")
    perturb(trainer.parts.policy.model)
    first = collected(trainer, PromptRecord(), 0)
    record = PromptRecord().after(paid(first, {4: 1.0, 5: 1.0, 6: 1.0, 7: 1.0, 9: 0.7}), trainer.row())
    asked = trainer.parts.collector.sampled[Author.POLICY]
    second = collected(trainer, record, 1)
    past = second.written_by(Author.PAST)
    assert past.any(dim=1).view(4, 4).sum(dim=1).tolist() == [0, 0, 1, 0], "prompt 1 is solved"
    (place,) = past.any(dim=1).nonzero().flatten().tolist()
    assert torch.equal(past[place], second.response_mask[place])
    assert text_of(second, place) == text_of(first, 9)
    assert (second.texts[place], second.finished[place]) == (first.texts[9], first.finished[9])
    written = trainer.parts.collector.sampled[Author.POLICY] - asked
    assert written == int(second.written_by(Author.POLICY).sum()), "no token of it is sampled again"
    # An old text that succeeds again is no success of this visit's; a new one takes its place.
    after = record.after(paid(second, {place: 1.0}), trainer.row())
    assert after[2].past == record[2].past
    assert (after[2].rate, after[2].successes) == (0.0, 2)
    new = 8 if place != 8 else 9
    surer = replace(second, sampled_logprobs=torch.where(past, -0.01, second.sampled_logprobs))
    both = record.after(paid(surer, {place: 1.0, new: 0.5}), trainer.row())
    assert both[2].past == text_of(second, new)


def test_processes_that_share_an_update_replay_the_same_texts() -> None:
    trainer = build("exgrpo")
    collector, row = trainer.parts.collector, trainer.row()
    record = PromptRecord().after(Scored(collected(trainer, PromptRecord(), 0), torch.ones(16)), row)
    record = PromptRecord({place: one._replace(rate=0.5) for place, one in record.rows.items()})
    whole = collected(trainer, record, 1)
    assert whole.written_by(Author.PAST).any(dim=1).sum() == 4
    for i in range(2):
        mine = range(i, 4, 2)
        share = collector.collect(SAMPLES[i:4:2], row, 1, numbers=mine, index=mine, record=record)
        rows = [place for place in range(16) if place // 4 % 2 == i]
        assert share.texts == tuple(whole.texts[place] for place in rows)
        assert share.author.any(dim=1).all()


def test_an_unmoved_policy_has_the_ratio_one_to_its_past() -> None:
    """Also where the end of a text is not possible before a number of tokens, as it was when it was drawn."""
    trainer = build("exgrpo", rollout={"min_response_tokens": 4}, changes={"help": {"gate": None}})
    perturb(trainer.parts.policy.model)
    first = Scored(collected(trainer, PromptRecord(), 0), torch.ones(16))
    record = PromptRecord().after(first, trainer.row())
    rollout = collected(trainer, record, 1)
    past = rollout.written_by(Author.PAST)
    assert past.any(dim=1).sum() == 4
    metrics = trainer.parts.updater.backward(trainer.assess(rollout), trainer.row())
    assert float(metrics["rollin_shaped_weight"]) == pytest.approx(1 / 1.1, rel=1e-5)
    assert metrics["update_kl"] < 1e-6


def test_a_guide_reads_it_as_a_hint_while_the_policy_writes_a_new_text() -> None:
    template = {"script": {"hint": {"template": "{hint}{prompt}"}}}
    trainer = build("sdpo", guide="self", changes=template)
    assert trainer.row().needs_reward
    perturb(trainer.parts.policy.model)
    first = collected(trainer, PromptRecord(), 0)
    assert first.hints == (None,) * 4, "nobody has had a success yet"
    record = PromptRecord().after(paid(first, {1: 1.0, 3: 0.5}), trainer.row())
    second = collected(trainer, record, 1)
    assert second.hints == (None, first.texts[1], None, first.texts[3])
    assert torch.equal(second.written_by(Author.POLICY), second.response_mask)
    assert not second.hinted.any(), "the policy reads the prompt alone"
    assert torch.equal(second.prompt_ids, first.prompt_ids)
    assert not trainer.row().foreseen


def test_it_is_foreseen_that_the_policy_may_have_to_write_all_texts() -> None:
    trainer = build("exgrpo")
    config = trainer.config
    for plan in planned(config.algorithm, config.rollout, 2, config.seed, 16):
        assert len(plan.of(Author.POLICY)) == config.rollout.episodes
        assert len(plan.of(Author.PAST)) == config.rollout.episodes // 4


def test_a_text_that_is_longer_than_the_limit_is_cut() -> None:
    trainer = build("exgrpo", changes={"help": {"gate": None}})
    long = PromptHistory(past=PastText((5,) * 9, (-0.5,) * 9))
    rollout = collected(trainer, PromptRecord(dict.fromkeys(PLACES, long)), 1)
    past: Tensor = rollout.written_by(Author.PAST).sum(dim=1)
    assert sorted(past.tolist()) == [0] * 12 + [6] * 4
    assert not rollout.finished[past > 0].any()
    assert math.isclose(float(rollout.sampled_logprobs[past > 0].sum()), -0.5 * 24)
