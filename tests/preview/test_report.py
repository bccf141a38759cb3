"""What `rlgf check` says of a run without faults is what the run does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from told_runs import RECIPE, counted, shown

from rlgf.algorithms import ALGORITHMS
from rlgf.config import load_config
from rlgf.learning.updater import Updater
from rlgf.preview.report import steps_per_update, validations
from rlgf.run import memory
from rlgf.run.build import build_parts
from rlgf.run.checkpoint import save_policy
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from rlgf.types import Author
from toys import FavouringGuide, LetterTask, letter_gpt


@pytest.mark.parametrize(("algorithm", "longest"), [("hinted-grpo", 16), ("guided-grpo", 6)])
def test_the_longest_text_of_a_guide_may_be_a_hint(algorithm: str, longest: int) -> None:
    text = shown(
        f"algorithm={algorithm}", "algorithm.help.length={whole: true}", "algorithm.help.shared=false"
    )
    (line,) = (line for line in text.splitlines() if "written by the guide" in line)
    assert line.split()[4] == str(longest)


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


def test_a_split_with_fewer_prompts_than_are_wanted_counts_those() -> None:
    text = " ".join(shown("evaluation.samples=256", "evaluation.test_samples=7").split())
    assert "4 times 64 prompts of 'validation', 7 of 'test' at the end" in text
    assert f"evaluation, by the policy 6 {(4 * 64 + 7) * 6:,}" in text
    searched = " ".join(
        shown("evaluation.samples=64", "evaluation.test_samples=7", "evaluation.beams=2").split()
    )
    assert f"evaluation, by the policy 6 {3 * (4 * 64 + 7) * 6:,}" in searched


def test_one_pass_over_the_data_is_one() -> None:
    assert "prompts in all 64, 1 pass over the 64 samples" in " ".join(shown("training.updates=4").split())


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


def test_a_run_is_told_in_plain_words() -> None:
    changes = ("algorithm=lols", "algorithm.terms.entropy.weight=0.01", "update.epochs=1")
    words = " ".join(shown(*changes).split())
    for part in (
        "letters: 5 updates of lols on the task 'toys:LetterTask', seed 0",
        "the policy begins, the guide goes on",
        "each text, with probability 0.8; its length is uniform from 1 to 5 tokens",
        "gae, gamma 1, lambda 0.95, whitened over the tokens whose losses read it; critic: values of the guide",
        "coefficient 0.001, taken off the reward of each of the policy's tokens",
        "clip 0.2",
        "entropy entropy",
        "16 episodes from 16 prompts",
        "1 epoch in minibatches of 8 episodes",
        "2 per update, 10 in all",
        "4 times 8 prompts of 'validation', 8 of 'test' at the end",
    ):
        assert part in words
    assert "None" not in words, "an option that is not set"


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_every_algorithm_can_be_told(algorithm: str) -> None:
    learns = any(row.learned_reward for row in ALGORITHMS[algorithm].rows)
    changes = ["reward=discriminator"] if learns else []
    if any(row.distills for row in ALGORITHMS[algorithm].rows):
        changes += ["guide=null", "guide.model=nowhere"]
    assert f"Algorithm {algorithm}" in shown(f"algorithm={algorithm}", *changes)


def test_prompts_that_would_be_cut_are_told_of(tmp_path: Path) -> None:
    save_policy(letter_gpt(), tmp_path)
    policy = f"policy={{scratch: null, model: {tmp_path}}}"
    assert "lose their beginning" not in shown(policy)
    text = " ".join(shown(policy, "rollout.max_prompt_tokens=1").split())
    assert "prompts of 'train' are over 1 tokens and lose their beginning" in text


def test_prompts_that_would_not_be_read_are_told_of(tmp_path: Path) -> None:
    policy = letter_gpt("xyz")
    policy.tokenizer.unk_token = "<end>"
    save_policy(policy, tmp_path)
    text = " ".join(shown(f"policy={{scratch: null, model: {tmp_path}}}").split())
    assert "prompts of 'train' hold characters that the policy's tokenizer does not have" in text
