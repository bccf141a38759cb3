"""Each warning appears where its numbers say so and nowhere else, once, and leads to its place in the docs."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from resume_script import toy_trainer
from rlgf.guides import Request
from rlgf.run.display import Display
from rlgf.run.logs import read_metrics
from rlgf.run.warnings import CHECKS, Found, Watch
from rlgf.types import Completion

HEALTHY: dict[str, list[float]] = {
    "reward": [0.1 + 0.01 * i for i in range(30)],
    "kl": [0.01 * i for i in range(30)],
    "entropy": [3.0 - 0.05 * i for i in range(30)],
    "groups_alike": [0.5] * 30,
    "explained_variance": [-0.5] * 10 + [0.4] * 20,
    "discriminator_loss": [0.693] * 9 + [0.65] * 11 + [0.693] * 10,
    "first_step_kl": [1e-9] * 30,
    "response_tokens": [20.0 + 0.5 * i for i in range(30)],
    "guide_blank": [0.1] * 30,
    "guide_cut": [0.4] * 30,
    "hint_cut": [0.1] * 30,
    "guide_gap": [2.0] * 30,
    "guide_calls": [32.0] * 30,
    "guide_empty": [1.0] * 30,
    "guide_cost": [0.01] * 30,
}
ILL: dict[str, tuple[dict[str, list[float]], int]] = {
    "reward-flat": ({"reward": [0.3, 0.4] * 6 + [0.0] * 18}, 22),
    "judge-falling": ({"validation/judge": [0.5, 0.6, 0.55, 0.4, 0.3, 0.2]}, 15),
    "ratio-off": ({"first_step_kl": [0.0] * 3 + [0.01] * 27}, 4),
    "kl-growing": ({"kl": [0.1] * 20 + [1.1] * 10, "reward": [0.4 - 0.01 * i for i in range(30)]}, 21),
    "entropy-collapsed": ({"entropy": [3.0] * 15 + [0.2] * 15}, 16),
    "length-drifting": ({"response_tokens": [20.0] * 10 + [45.0] * 20}, 14),
    "groups-alike": ({"groups_alike": [0.5] * 8 + [0.95] * 22}, 13),
    "critic-blind": ({"explained_variance": [0.0] * 30}, 20),
    "discriminator-blind": ({"discriminator_loss": [0.693] * 30}, 10),
    "guide-silent": ({"guide_empty": [0.0] * 10 + [30.0] * 20}, 12),
    "guide-cut": ({"guide_cut": [0.0] * 7 + [0.6] * 23}, 12),
    "hint-cut": ({"hint_cut": [0.0] * 7 + [0.3] * 23}, 12),
    "guide-improbable": ({"guide_gap": [2.0] * 7 + [3.5] * 23}, 12),
    "budget-nearly-spent": ({"guide_cost": [0.05] * 30}, 18),
}
VALIDATED = {"validation/reward": [0.1, 0.2, 0.25, 0.3, 0.35, 0.4], "validation/judge": [0.5, 0.6] * 3}
"""Every fifth update."""


def lines(**changes: list[float]) -> list[dict[str, Any]]:
    columns = {**HEALTHY, **VALIDATED, **changes}
    found: list[dict[str, Any]] = []
    for i in range(30):
        if i % 5 == 0:
            measured = {name: values[i // 5] for name, values in columns.items() if name in VALIDATED}
            found.append({"update": i, **measured})
        row = {name: values[i] for name, values in columns.items() if name not in VALIDATED}
        found.append({"update": i + 1, "algorithm": "ppo", **row})
    return found


def test_a_healthy_run_is_told_nothing() -> None:
    assert Watch({"guide": {"budget": {"cost": 1.0, "then": "stop"}}}).look(lines()) == []


@pytest.mark.parametrize("name", ILL)
def test_each_is_said_once_where_it_begins(name: str) -> None:
    changes, first = ILL[name]
    found = Watch({"guide": {"budget": {"cost": 1.0, "then": "stop"}}}).look(lines(**changes))
    assert [(one.name, one.update) for one in found] == [(name, first)]
    assert str(found[0]).endswith(f"See docs/warnings.md#{name}.")


def test_a_reward_that_stays_at_its_best_is_no_fault() -> None:
    assert Watch().look(lines(reward=[0.1] * 5 + [1.0] * 25)) == []


def test_a_policy_that_goes_far_for_a_reward_is_told_nothing() -> None:
    """As most runs do that learn their task, between updates 10 and 40."""
    assert Watch().look(lines(kl=[0.1 * i for i in range(30)])) == []
    (found,) = Watch().look(lines(kl=[0.0] + [3.0] * 29, reward=[0.5] + [0.2 + 0.01 * i for i in range(29)]))
    assert (found.name, found.update) == ("kl-growing", 6), "a policy that breaks in its first updates"


def test_a_run_without_a_reward_may_grow_far_from_its_start_too() -> None:
    rewardless = [{"update": i, "algorithm": "distill", "kl": 0.1 if i < 10 else 1.5} for i in range(20)]
    (found,) = Watch().look(rewardless)
    assert (found.name, found.update) == ("kl-growing", 10)
    assert "reward" not in found.sentence


def test_a_discriminator_that_is_one_term_of_a_reward_is_looked_at_too() -> None:
    blind = [{"update": i, "algorithm": "gail", "real/discriminator_loss": 0.693} for i in range(1, 12)]
    assert [(one.name, one.update) for one in Watch().look(blind)] == [("discriminator-blind", 10)]


def test_texts_of_one_length_have_no_end_that_a_guide_could_miss() -> None:
    cut = lines(guide_cut=[1.0] * 30)
    one = Watch({"rollout": {"min_response_tokens": 48, "max_response_tokens": 48}})
    assert one.look(cut) == []
    other = Watch({"rollout": {"min_response_tokens": 5, "max_response_tokens": 48}})
    assert [found.name for found in other.look(cut)] == ["guide-cut"]


def test_lengths_are_compared_within_a_row_of_a_mixture() -> None:
    history = [
        {"update": i, "algorithm": row, "response_tokens": tokens}
        for row, tokens in (("bc", 10.0), ("ppo", 30.0))
        for i in range(15)
    ]
    assert Watch().look(history) == []


def test_a_beginning_without_a_word_is_a_silent_guide_of_any_kind() -> None:
    local = lines(guide_blank=[0.0] * 5 + [0.5] * 25, guide_calls=[0.0] * 30, guide_empty=[0.0] * 30)
    (found,) = Watch().look(local)
    assert (found.name, found.update) == ("guide-silent", 10)


def test_answers_from_the_cache_are_answers() -> None:
    """Counted among those without a text, they are counted among all."""
    counts = {"guide_calls": [4.0] * 30, "guide_cached": [96.0] * 30}
    assert Watch().look(lines(**counts, guide_empty=[4.0] * 30)) == []
    (found,) = Watch().look(lines(**counts, guide_empty=[30.0] * 30))
    assert found.sentence.startswith("30% of the guide's last 100 answers had no text")


def test_a_budget_is_that_of_its_own_server() -> None:
    """Not of all that several guides spend."""
    guide = {
        "guides": {"a": {"model": "x/y", "budget": {"tokens": 100, "cost": None}}, "b": {"model": "x/y"}}
    }
    spent = {"guide_completion_tokens": 9.0, "guide_completion_tokens/b/x/y": 5.0}
    history = [
        {"update": n, "algorithm": "ppo", **spent, "guide_prompt_tokens/a/x/y": 4.0} for n in range(1, 31)
    ]
    (found,) = Watch({"guide": guide}).look(history)
    assert (found.name, found.update) == ("budget-nearly-spent", 23)
    assert found.sentence.startswith("92% of 'guide.guides.a.budget.tokens' is spent after 23 updates")


def test_a_policy_that_never_had_entropy_has_lost_none() -> None:
    assert Watch().look(lines(entropy=[0.0] * 30)) == []


def test_the_entropy_of_one_row_is_not_held_against_that_of_another() -> None:
    rows = [
        {"update": n, "algorithm": "a" if n < 9 else "b", "entropy": 3.0 if n < 9 else 0.2} for n in range(30)
    ]
    assert [found.name for found in Watch().look(rows)] == []


def test_evaluations_and_runs_without_numbers_are_passed_over() -> None:
    history = [{"update": i, "validation/reward": 0.0} for i in range(30)]
    assert Watch().look([*history, *({"update": i, "algorithm": "bc"} for i in range(30))]) == []


def test_every_warning_has_its_place_in_the_docs() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "warnings.md").read_text()
    anchors = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert anchors == [*CHECKS, "budget-nearly-spent"] == [*ILL]


@pytest.mark.long
def test_a_run_says_it_in_the_terminal_and_not_again_when_it_resumes(tmp_path: Path) -> None:
    def text(resume: bool, updates: int) -> str:
        console = Console(file=io.StringIO(), width=200)
        still: dict[str, Any] = {"update": {"learning_rate": 0.0}, "algorithm": {"kl": {"coefficient": 0.0}}}
        trainer = toy_trainer(
            tmp_path, **still, training={"updates": updates}, reward={"name": "test_warnings:nothing"}
        )
        trainer.display = Display(console)
        trainer.train(resume=resume)
        return console.file.getvalue()

    assert text(False, 12).count("The reward has stood at its lowest, 0, for 10") == 1
    assert "at its lowest" not in text(True, 14)


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "algorithm", "answer", "guided"),
    [
        ("", "ppo++", Completion("aab", finished=True), True),
        ("guide-silent", "ppo++", Completion("", finished=True), True),
        ("guide-silent", "seq-kd", Completion("", finished=True), True),
        ("", "aggrevated", Completion("aa", finished=True), True),
        ("guide-cut", "aggrevated", Completion("a" * 20, finished=False), True),
        ("reward-flat", "ppo", Completion("a", finished=True), False),
        ("groups-alike", "grpo", Completion("a", finished=True), False),
    ],
)
def test_a_run_with_a_fault_says_so_within_ten_updates(
    tmp_path: Path, fault: str, algorithm: str, answer: Completion, guided: bool
) -> None:
    class Guide:
        def write(self, requests: Sequence[Request]) -> list[Completion]:
            return [answer] * len(requests)

    rows = {"group_size": 4} if algorithm == "grpo" else {}
    changes: dict[str, Any] = {} if guided else {"reward": {"name": "test_warnings:nothing"}}
    trainer = toy_trainer(
        tmp_path,
        guide=Guide(),
        algorithm={"base": algorithm, **rows},
        update={"learning_rate": 1e-4},
        training={"updates": 10},
        **changes,
    )
    trainer.train()
    metrics = read_metrics(tmp_path)
    found = [one.name for one in Watch().look(metrics)]
    assert (fault in found) if fault else not found
    assert metrics[-2]["warnings"] == len(found), "of the last update, before the last validation"


def test_a_policy_that_changed_since_it_wrote_is_noticed_at_the_first_step(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, algorithm={"base": "ppo"})
    sound = trainer.learn(trainer.assess(trainer.collect()))
    experience = trainer.assess(trainer.collect())
    with torch.no_grad():
        for weight in trainer.parts.policy.model.parameters():
            weight.mul_(1.5)
    changed = trainer.learn(experience)
    assert isinstance(sound["first_step_kl"], float)
    assert sound["first_step_kl"] < 1e-7
    found = Watch().look([{"update": i, "algorithm": "ppo", **row} for i, row in enumerate((sound, changed))])
    assert [(one.name, one.update) for one in found] == [("ratio-off", 1)]


def nothing(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    return [0.0] * len(completions)


def test_a_warning_reads_as_a_sentence_with_its_anchor() -> None:
    assert str(Found("kl-growing", 3, "So it is.")) == "So it is. See docs/warnings.md#kl-growing."
