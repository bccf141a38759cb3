"""What is said that the guides will be asked is what they are asked."""

from __future__ import annotations

import math
import re
import time
from typing import Any

import pytest
from rich.console import Console
from told_runs import RECIPE, counted, shown

from faulty_server import FaultyServer, serving
from rlgf.config import load_config
from rlgf.preview.bill import evaluation_bills, training_bills
from rlgf.rollout.plan import planned
from rlgf.run.build import build_parts
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from rlgf.types import Author, Message, Sample
from toys import LetterTask, letter_gpt

SURE = {
    "ppo++": ["algorithm=ppo++"],
    "a schedule": ["algorithm=ppo++", "algorithm.help.probability={start: 1, end: 0}"],
    "a share": ["algorithm=ppo++", "algorithm.help.length={low: 0.5, high: {start: 1, end: 0.6}}"],
    "a limit": ["algorithm=ppo++", "rollout.max_guide_tokens=3"],
    "a shared group": ["algorithm=guided-grpo"],
    "members apart": ["algorithm=guided-dpo"],
    "whole texts": ["algorithm=luffy"],
    "all groups fail": ["algorithm=bread", "algorithm.help.success=2"],
    "all groups fail, each is drawn": ["algorithm=bread", "algorithm.help={success: 2, length: {by: law}}"],
    "several candidates": ["algorithm=luffy", "guide.candidates=3"],
    "texts to be shown": ["algorithm=gad", "reward=discriminator"],
    "another seed": ["algorithm=ppo++", "seed=3"],
}  # fmt: skip
AT_MOST = {
    "the guide finishes": ["algorithm=aggrevated"],
    "the guide alone": ["algorithm=aggrevated", "algorithm.help.probability=0.2", "rollout.max_guide_tokens=4"],
    "a mixture": ["algorithm=lols"],
    "a switch": ["algorithm=d2lols"],
    "some groups fail": ["algorithm=bread"],
    "each prompt's own": ["algorithm=adaback", "algorithm.script.rollin=guide"],
    "prompts that failed": ["algorithm=bread", "algorithm.help={gate: {looks_at: record}, length: {by: law}}"],
    "by difficulty": ["algorithm=bread", "algorithm.help={gate: {high: 0.5}, length: {by: difficulty}}"],
    "the best of what finishes": ["algorithm=dagger", "guide.candidates=3"],
    "no guide": ["algorithm=grpo"],
}  # fmt: skip


@pytest.mark.parametrize("case", [*SURE, *AT_MOST])
def test_the_guide_is_asked_for_no_more_than_is_said(case: str) -> None:
    config = load_config(RECIPE, *{**SURE, **AT_MOST}[case])
    trainer, asked = counted(config)
    plans = list(planned(config.algorithm, config.rollout, config.training.updates, config.seed, 64))
    (bill,) = training_bills(config, plans, trainer.parts.train)
    for plan, requests in zip(plans, asked, strict=True):
        said = plan.of(Author.GUIDE)
        limits = [ask.limit for ask in said for _ in range(config.guide.candidates)]
        assert len(limits) >= len(requests)
        assert sum(limits) >= sum(request.max_new_tokens for request in requests)
        if case in SURE:
            assert limits == [request.max_new_tokens for request in requests]
    assert bill.run.calls >= sum(map(len, asked))
    if case in SURE:
        assert bill.run.calls == sum(map(len, asked)) > 0
        assert bill.update.calls == max(map(len, asked))
        assert bill.run.completion_tokens == trainer.progress.guide_tokens
    if case == "no guide":
        assert bill.run.calls == 0
    policy = sum(ask.limit for plan in plans for ask in plan.of(Author.POLICY))
    assert policy >= trainer.progress.policy_tokens > 0


def test_what_ends_a_run_early_bounds_its_tokens() -> None:
    sources = ["training.updates=50", "training.policy_tokens=200", "training.guide_tokens=70"]
    text = " ".join(shown("algorithm=ppo++", *sources).split())
    assert "seed 0; it ends earlier after 200 tokens of the policy or 70 tokens of the guide" in text
    trainer = Trainer(load_config(RECIPE, "algorithm=ppo++", *sources), display=Display(Console(quiet=True)))
    while trainer.done_share < 1:
        trainer.step()
    for author, used in (
        ("policy", trainer.progress.policy_tokens),
        ("guide", trainer.progress.guide_tokens),
    ):
        row = re.search(rf"written by the {author} [\d,]+ ([\d,]+) ([\d,]+)", text)
        assert row is not None
        each, most = (int(number.replace(",", "")) for number in row.groups())
        assert used <= most <= 200 + each


def test_the_tokens_of_all_candidates_are_counted() -> None:
    sources = ["algorithm=luffy", "guide.candidates=3"]
    trainer, _ = counted(load_config(RECIPE, *sources))
    row = re.search(r"sampled by the guide [\d,]+ [\d,]+ ([\d,]+)", " ".join(shown(*sources).split()))
    assert row is not None
    assert int(row[1].replace(",", "")) == trainer.progress.guide_tokens


def test_a_mixture_runs_its_rows_as_often_as_is_said() -> None:
    trainer, _ = counted(load_config(RECIPE, "algorithm=lols"))
    rows = [trainer.row(update).name for update in range(5)]
    text = shown("algorithm=lols")
    assert f"ppo++ in {rows.count('ppo++')} updates and aggrevated in {rows.count('aggrevated')}" in " ".join(
        text.split()
    )


def test_what_is_measured_of_the_guide_is_one_answer_for_each_prompt() -> None:
    config = load_config(RECIPE, "rollout.max_guide_tokens=5")
    trainer, _ = counted(load_config(RECIPE, "rollout.max_guide_tokens=5", "training.updates=1"))
    guide = trainer.parts.collector.writers[Author.GUIDE].guide
    trainer.evaluate(Author.GUIDE, "test")
    (bill,) = evaluation_bills(config, LetterTask().load("test")[:8])
    assert bill.run.calls == len(guide.requests) == 8
    assert bill.run.completion_tokens == sum(r.max_new_tokens for r in guide.requests) == 40


@pytest.mark.parametrize("guides", [1, 2, 3])
def test_a_servers_bill_is_no_less_than_what_it_was_paid(guides: int) -> None:
    with serving(FaultyServer()) as server:
        one = {
            "url": server.url,
            "model": "letters",
            "cache": None,
            "prices": {"prompt": 1, "completion": 10},
        }
        guide: dict[str, Any] = {**one, "budget": {"calls": 1000}}
        if guides > 1:
            within = {"guides": {"a": one, "b": one}}
            guide = {"guides": {"x": one, "y": one if guides == 2 else within}, "weights": {"x": 3}}
        config = load_config({**RECIPE, "guide": guide}, "algorithm=ppo++", "training.updates=3")
        plans = list(planned(config.algorithm, config.rollout, 3, config.seed, 64))
        bills = training_bills(config, plans, LetterTask().load("train"))
        assert not server.seen, "nothing is asked"
        parts = build_parts(config, policy=letter_gpt())
        trainer = Trainer(config, parts, Display(Console(quiet=True)))
        for _ in range(3):
            trainer.step()
        remote = trainer.parts.collector.remote
        assert remote is not None
        paid = list(remote.accounts.values())
        trainer.close()
    for bill, usage in zip(bills, paid, strict=True):
        assert bill.run.calls == usage.calls > 0
        assert bill.run.prompt_tokens >= 0.5 * usage.prompt_tokens
        assert bill.run.completion_tokens >= usage.completion_tokens
        assert bill.run.cost > 0
        assert bill.suffices(bill.run)


@pytest.mark.parametrize("style", ["chat", "completions"])
def test_a_chat_is_billed_as_the_guide_is_sent_it(style: str) -> None:
    guide = {"url": "http://localhost:9/v1", "model": "letters", "style": style, "cache": None}
    config = load_config({**RECIPE, "guide": guide})
    chat = (Message("system", "s" * 400), Message("user", "u"))
    (bill,) = evaluation_bills(config, [Sample("u" * 20, messages=chat)] * 3)
    tokens_of_each = {"chat": (400 + 1 + 2 * 16) / 2, "completions": 20 / 2}[style]
    assert bill.run.prompt_tokens == 3 * math.ceil(tokens_of_each)


@pytest.mark.parametrize("algorithm", ["ppo++", "luffy", "d2lols"])
def test_a_long_run_is_counted_on_updates_that_stand_for_others(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = f"algorithm={algorithm}", "training.updates=70"
    config, train = load_config(RECIPE, *sources), [Sample("ab")] * 64
    given = config.algorithm, config.rollout, 70, config.seed, 64
    exact, whole = training_bills(config, planned(*given), train), " ".join(shown(*sources).split())
    monkeypatch.setattr("rlgf.rollout.plan._MOST_EPISODES", 25 * config.rollout.episodes)
    plans = list(planned(*given))
    assert [plan.times for plan in plans] == [3] * 23 + [1]
    for counted_, bill in zip(training_bills(config, plans, train), exact, strict=True):
        assert counted_.run.calls == pytest.approx(bill.run.calls, rel=0.1)
        assert counted_.run.completion_tokens == pytest.approx(bill.run.completion_tokens, rel=0.15)
    told = " ".join(shown(*sources).split())
    assert "Counted on one of every 3 updates, which stands for them." in told
    for line in (r"[\d,]+ passes over", r"per update, [\d,]+ in all", r"prompts in all [\d,]+"):
        assert re.findall(line, told) == re.findall(line, whole) != []


def test_the_longest_run_is_told_at_once() -> None:
    begun = time.perf_counter()
    assert "1,000,000,000 updates of ppo++" in shown("algorithm=ppo++", "training.updates=1000000000")
    assert time.perf_counter() - begun < 60
