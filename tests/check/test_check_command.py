"""`rlgf check`: what it says of a run is what the run does, and it needs neither weights nor servers for it."""

from __future__ import annotations

import io
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from faulty_server import FaultyServer, serving
from rlgf.algorithms import ALGORITHMS
from rlgf.check.bill import evaluation_bills, training_bills
from rlgf.check.faults import check
from rlgf.check.report import steps_per_update, told, validations
from rlgf.check.words import schedule
from rlgf.cli import main
from rlgf.config import Config, load_config
from rlgf.guides import Request
from rlgf.learning.updater import Updater
from rlgf.models.lora import POLICY
from rlgf.models.memory import logits_bytes, policy_sizes
from rlgf.models.passes import count
from rlgf.models.response_scores import MOST_LOGITS
from rlgf.rollout.plan import planned
from rlgf.run import memory
from rlgf.run.build import build_parts
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from rlgf.schedules import Schedule, constant
from rlgf.types import Author, Message, Sample
from toys import FavouringGuide, LetterTask, letter_gpt, letter_t5

RECIPE: dict[str, Any] = {
    "name": "letters",
    "task": "toys:LetterTask",
    "policy": {"scratch": {"vocabulary": 300, "layers": 1, "width": 32, "context": 64}},
    "guide": {"name": "toys:FavouringGuide", "options": {"favourite": "a", "probability": 0.6}},
    "reward": "toys:share_of_a",
    "rollout": {"episodes": 16, "max_prompt_tokens": 4, "max_response_tokens": 6, "max_hint_tokens": 16},
    "update": {"minibatch": 8, "epochs": 2},
    "training": {"updates": 5, "trackers": []},
    "evaluation": {"samples": 8, "test_samples": 8, "every": 2},
}


class CountingGuide(FavouringGuide):
    """Knows which update it was asked in."""

    updates: list[list[Request]]

    def next_update(self) -> None:
        self.updates = [*getattr(self, "updates", []), self.requests]
        self.requests = []


def counted(config: Config) -> tuple[Trainer, list[list[Request]]]:
    """A real run of all updates, and what its guide was asked in each."""
    guide = CountingGuide("a", 0.6)
    parts = build_parts(config, task=LetterTask(), guide=guide, policy=letter_gpt())
    trainer = Trainer(config, parts, Display(Console(quiet=True)))
    for _ in range(config.training.updates):
        trainer.step()
        guide.next_update()
    return trainer, guide.updates


def shown(*sources: Any) -> str:
    found = check(load_config(RECIPE, *sources))
    assert found.broken == []
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(told(found))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 100
    return text


def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["rlgf", "check", *words])
    monkeypatch.setenv("COLUMNS", "100")
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


# What the guide is asked.

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
    plans = list(planned(config.algorithm, config.rollout, config.training.updates, config.seed))
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


@pytest.mark.parametrize("ensemble", [False, True])
def test_a_servers_bill_is_no_less_than_what_it_was_paid(ensemble: bool) -> None:
    with serving(FaultyServer()) as server:
        one = {
            "url": server.url,
            "model": "letters",
            "cache": None,
            "prices": {"prompt": 1, "completion": 10},
        }
        guide: dict[str, Any] = {**one, "budget": {"calls": 1000}}
        if ensemble:
            guide = {"guides": {"x": one, "y": one}, "weights": {"x": 3}}
        config = load_config({**RECIPE, "guide": guide}, "algorithm=ppo++", "training.updates=3")
        plans = list(planned(config.algorithm, config.rollout, 3, config.seed))
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


# Sizes.


@pytest.mark.parametrize("algorithm", ["ppo", "guided-dpo", "bc", "grpo"])
def test_optimizer_steps_are_counted(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(RECIPE, f"algorithm={algorithm}", "update.minibatch=6", "training.updates=1")
    steps = []
    step = Updater._step

    def counting(self: Updater) -> Any:
        steps.append(1)
        return step(self)

    monkeypatch.setattr(Updater, "_step", counting)
    counted(config)
    at_most = steps_per_update(config, config.algorithm)
    assert 0 < len(steps) <= at_most
    if algorithm != "guided-dpo":
        assert len(steps) == at_most


@pytest.mark.parametrize(("updates", "every"), [(5, 2), (4, 2), (1, 5)])
def test_evaluations_are_counted(
    updates: int, every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(
        RECIPE, f"training.updates={updates}", f"evaluation.every={every}", f"output={tmp_path / 'run'}"
    )
    splits: list[str] = []
    measure = Trainer.evaluate

    def counting(self: Trainer, author: Author = Author.POLICY, split: str = "test") -> Any:
        splits.append(split)
        return measure(self, author, split)

    monkeypatch.setattr(Trainer, "evaluate", counting)
    parts = build_parts(config, task=LetterTask(), guide=FavouringGuide("a", 0.6), policy=letter_gpt())
    Trainer(config, parts, Display(Console(quiet=True))).train()
    assert splits.count("validation") == validations(config)
    assert splits.count("test") == 1


# Memory.


@pytest.mark.parametrize("critic", ["separate", "head"])
@pytest.mark.parametrize("lora", [None, {"r": 2}])
@pytest.mark.parametrize("make", [letter_gpt, letter_t5])
def test_parameters_are_those_of_the_real_models(make: Any, lora: Any, critic: str, tmp_path: Path) -> None:
    made = make()
    made.model.config.save_pretrained(tmp_path / "bare")
    made.model.save_pretrained(tmp_path / "whole")
    made.tokenizer.save_pretrained(tmp_path / "whole")
    policy = {"critic": critic, "lora": lora}
    recipe = {**RECIPE, "policy": {**policy, "model": str(tmp_path / "whole")}, "algorithm": "lols"}
    config = load_config(recipe)
    parts = build_parts(config, guide=FavouringGuide("a", 0.6))
    # From a folder without weights.
    bare = load_config({**recipe, "policy": {**policy, "model": str(tmp_path / "bare")}})
    sizes = policy_sizes(bare.policy.source, bare.policy.lora, critic, ["guide", "policy"])
    by_name = {part.name: part.parameters for part in sizes.parts}
    trained = parts.updater.parameters
    assert sizes.trained == sum(count(parameters) for parameters in trained.values())
    assert sizes.trained == count(parts.updater.trained)
    assert sizes.training_bytes == 12 * sizes.trained
    for name in ("guide", "policy"):
        assert by_name[f"critic of the {name}"] == count(trained[f"critic {name}"])
    assert by_name["policy"] == count(made.model.parameters())
    assert sizes.shape.vocabulary == 5
    if lora is None:
        assert by_name["reference (frozen start)"] == by_name["policy"]
    else:
        assert parts.policy.adapters is not None
        assert by_name["policy's adapter"] == count(parts.policy.adapters.parameters(POLICY))


def test_a_model_from_scratch_is_counted_with_all_of_its_vocabulary() -> None:
    config = load_config(RECIPE)
    parts = build_parts(config, guide=FavouringGuide("a", 0.6))
    (said, *_) = policy_sizes(config.policy.source, None, "head", []).parts
    missing = 300 - len(parts.policy.tokenizer)
    assert said.parameters == count(parts.policy.model.parameters()) + 32 * missing


def test_the_largest_micro_batch_is_bounded_by_its_tokens_and_by_the_minibatch() -> None:
    assert logits_bytes(10, 4, 6, budget=35, rows=8) == 3 * 6 * 10 * 4
    assert logits_bytes(10, 4, 6, budget=1000, rows=8) == 8 * 6 * 10 * 4
    assert logits_bytes(10, 4, 6, budget=5, rows=8) == 1 * 6 * 10 * 4
    assert logits_bytes(50_000, 512, 512, budget=16_384, rows=64) == MOST_LOGITS * 4, (
        "more are made in pieces"
    )


@pytest.mark.parametrize("short", [0, 1])
def test_what_cannot_fit_is_said(short: int, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = memory.estimated(load_config(RECIPE)).least()
    monkeypatch.setattr(memory, "device_bytes", lambda: needed - short)
    assert ("so it cannot fit here" in " ".join(shown().split())) == bool(short)


def test_under_a_launcher_it_is_said_what_each_process_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "4", "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}.items():
        monkeypatch.setenv(name, value)
    words = " ".join(shown().split())
    assert "Of each of 4 processes, which share the weights (FSDP2)" in words
    assert "gathered weights" in words


# The command.


def recipe_file(folder: Path, **changes: Any) -> str:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}))
    return str(path)


def test_every_broken_rule_is_listed_and_the_code_is_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_file(tmp_path)
    code, out, err = command(capsys, monkeypatch, recipe, "guide=null", "reward=null", "algorithm=ppo++")
    assert (code, out) == (2, "")
    assert [line.partition(" needs ")[2][:8] for line in err.splitlines()] == ["a guide:", "a reward"]
    code, out, err = command(
        capsys,
        monkeypatch,
        recipe,
        "rollout.max_response_tokens=99",
        "reward=toys:LETTERS",
        "task=toys:LENGTH",
    )
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 3
    for part in ("context holds 64", "cannot be called", "not a class or function"):
        assert part in err


def test_models_that_are_not_there_are_missing_and_nothing_else_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_file(tmp_path, policy={"model": "nowhere/policy"}, guide={"model": "nowhere/guide"})
    code, out, err = command(capsys, monkeypatch, recipe, "algorithm=lols")
    assert (code, err) == (0, "")
    words = " ".join(out.split())
    assert words.count("Missing: model 'nowhere/") == 2
    assert "No figure: the policy's model is not there" in words
    assert "requests" in words


def test_no_weights_are_loaded_and_no_server_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    letter_gpt().model.config.save_pretrained(tmp_path / "bare")
    with serving(FaultyServer()) as server:
        guide = {"url": server.url, "model": "letters", "cache": None, "budget": {"calls": 10}}
        recipe = recipe_file(tmp_path, policy={"model": str(tmp_path / "bare")}, guide=guide)
        code, out, err = command(capsys, monkeypatch, recipe, "algorithm=ppo++")
        assert (code, err) == (0, "")
        assert not server.seen
    words = " ".join(out.split())
    assert "The budget (10 calls) may not suffice: where it is spent the run stops" in words
    assert "model parameters weights gradients AdamW" in words


def test_a_run_is_told_in_plain_words() -> None:
    words = " ".join(shown("algorithm=lols", "algorithm.terms.entropy.weight=0.01").split())
    for part in (
        "letters: 5 updates of lols on the task 'toys:LetterTask', seed 0",
        "the policy begins, the guide goes on",
        "each text, with probability 0.8; its length is uniform from 1 to 5 tokens",
        "gae, gamma 1, lambda 0.95, whitened over the tokens whose losses read it; critic: values of the guide",
        "coefficient 0.001, taken off the reward of each of the policy's tokens",
        "clip 0.2",
        "entropy entropy",
        "16 episodes from 16 prompts",
        "4 per update, 20 in all",
        "4 times 8 prompts of 'validation', 8 of 'test' at the end",
    ):
        assert part in words


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_every_algorithm_can_be_told(algorithm: str) -> None:
    learns = any(row.learned_reward for row in ALGORITHMS[algorithm].rows)
    changes = ["reward=discriminator"] if learns else []
    if any(row.distills for row in ALGORITHMS[algorithm].rows):
        changes += ["guide=null", "guide.model=nowhere"]
    assert f"Algorithm {algorithm}" in shown(f"algorithm={algorithm}", *changes)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (constant(0.5), "0.5"),
        (Schedule(start=1, end=0), "1, falling to 0 over the run (linear)"),
        (Schedule(start=0, end=1, shape="cosine", over=0.5), "0, rising to 1 over the first 50% of the run (cosine)"),
        (Schedule(start=0, end=1, shape="step", over=0.4), "0, and 1 from 40% of the run on"),
        (Schedule(start=2, end=2, warmup=0.1), "2, after a warm-up of 10% of the run"),
    ],
)  # fmt: skip
def test_schedules_in_words(number: Schedule, words: str) -> None:
    assert schedule(number) == words
