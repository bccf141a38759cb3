"""What guides will be asked for is known before anything is written."""

from __future__ import annotations

import pytest
import torch
from hinted_texts import SAMPLES, Watched, collector, hinted, tiered

from faulty_server import FaultyServer, serving
from rlgf import seeding
from rlgf.algorithms.catalog import GHPO, SCAF_GRPO
from rlgf.guides import HTTPGuide, HTTPGuideConfig
from rlgf.rollout.plan import planned, update_asks
from rlgf.rollout.record import PromptHistory, PromptRecord
from rlgf.run.plan import shuffled_passes
from rlgf.types import Author, Scored
from toys import FavouringGuide
from training_toys import build


def test_as_many_texts_are_foreseen_as_there_are_tiers() -> None:
    for row, tiers in ((tiered(GHPO), 3), (tiered(SCAF_GRPO), 4)):
        maker = collector()
        maker.collect(SAMPLES, row, rewards=Watched(99))
        asks = update_asks(row, maker.config, len(SAMPLES), 0, 0.0, 0)
        assert len(asks) == 4 * len(SAMPLES) * (1 + tiers)
        assert maker.sampled[Author.POLICY] <= sum(ask.limit for ask in asks)


def test_a_remote_guide_is_asked_ahead_for_just_the_hints_of_the_update(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    row = hinted(author="guide", ask="a{prompt}")
    with serving(FaultyServer(letters="abcd")) as server:
        guide = HTTPGuide(HTTPGuideConfig(url=server.url, model="letters", style="completions", cache=None))
        maker = collector(guide)
        maker.prefetch(SAMPLES, row, 0, 0.0)
        assert maker.collect(SAMPLES, row).hinted.any()
        guide.close()
        assert len(server.bodies) == guide.usage.calls == len(SAMPLES)
        assert {body["prompt"] for body in server.bodies} == {f"a{sample.prompt}" for sample in SAMPLES}


@pytest.mark.parametrize("looks_at", ["group", "record"])
def test_a_remote_guide_is_not_asked_ahead_where_a_gate_is_yet_to_open(
    monkeypatch: pytest.MonkeyPatch, looks_at: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    row = hinted({"success": 0.5, "gate": {"looks_at": looks_at}}, author="guide", ask="a{prompt}")
    with serving(FaultyServer(letters="abcd")) as server:
        guide = HTTPGuide(HTTPGuideConfig(url=server.url, model="letters", style="completions", cache=None))
        collector(guide).prefetch(SAMPLES, row, 0, 0.0)
        guide.close()
        assert not server.bodies


@pytest.mark.parametrize("looks_at", ["group", "record"])
def test_what_a_guide_will_be_asked_for_is_known_before(looks_at: str) -> None:
    help = {"probability": 0.5, "success": 0.5, "gate": {"looks_at": looks_at}}
    row = hinted(help, author="guide")
    guide = FavouringGuide("c", 1.0)
    maker = collector(guide)
    failed = PromptRecord(dict.fromkeys(range(len(SAMPLES)), PromptHistory(rate=0.0, failures=1)))
    maker.collect(
        SAMPLES,
        row,
        rewards=lambda rollout: torch.zeros(len(rollout)),
        index=range(len(SAMPLES)),
        record=failed,
    )
    asks = update_asks(row, maker.config, len(SAMPLES), 0, 0.0, 0)
    planned = [ask.limit for ask in asks if ask.author is Author.GUIDE]
    assert planned == [request.max_new_tokens for request in guide.requests]
    seeds = [seeding.derive(ask.seed, "guide") for ask in asks if ask.author is Author.GUIDE]
    assert seeds == [request.seed for request in guide.requests]
    policy = [ask for ask in asks if ask.author is Author.POLICY]
    assert len(policy) == (2 if looks_at == "group" else 1) * 4 * len(SAMPLES)
    assert all((ask.written, ask.limit) == (0, 6) for ask in policy)


@pytest.mark.parametrize(
    ("episodes", "updates", "groups"),
    [(16, 6, [32] * 3), (20, 3, [40, 40]), (24, 5, [48, 48]), (80, 2, [160])],
)
def test_the_start_is_foreseen_at_the_first_visit_of_each_prompt(
    episodes: int, updates: int, groups: list[int]
) -> None:
    """Of 40 prompts. Where a pass ends within an update its prompts may come twice before their values are known."""
    trainer = build("a-star-po", changes={"start_value": {"texts": 2}}, rollout={"episodes": episodes})
    config, collector = trainer.config, trainer.parts.collector
    train = trainer.parts.train[:40]
    plans = list(planned(config.algorithm, config.rollout, updates, config.seed, len(train)))
    limits = [len(plan.of(Author.POLICY)) for plan in plans]
    assert limits == [episodes + more for more in [*groups, *[0] * (updates - len(groups))]]
    record, first = PromptRecord(), 0
    for update, plan in enumerate(plans):
        order = list(shuffled_passes(first, plan.prompts, len(train), config.seed))
        first += plan.prompts
        before = collector.sampled[Author.POLICY]
        rollout = collector.collect(
            [train[place] for place in order],
            plan.row,
            update,
            rewards=trainer.parts.assessor.rewards,
            index=order,
            record=record,
        )
        record = record.after(Scored(rollout), plan.row)
        assert collector.sampled[Author.POLICY] - before <= sum(ask.limit for ask in plan.of(Author.POLICY))
