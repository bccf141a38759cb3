"""Each warning appears where its numbers say so and nowhere else, once, and leads to its place in the docs."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from resume_script import toy_trainer
from rlgf.run.display import Display
from rlgf.run.warnings import CHECKS, Found, Watch

HEALTHY: dict[str, list[float]] = {
    "reward": [0.1 + 0.01 * i for i in range(30)],
    "kl": [0.01 * i for i in range(30)],
    "entropy": [3.0 - 0.05 * i for i in range(30)],
    "groups_alike": [0.5] * 30,
    "explained_variance": [-0.5] * 10 + [0.4] * 20,
    "guide_calls": [32.0] * 30,
    "guide_empty": [1.0] * 30,
    "guide_cost": [0.01] * 30,
}
ILL: dict[str, tuple[dict[str, list[float]], int]] = {
    "reward-flat": ({"reward": [0.3, 0.4] * 6 + [0.0] * 18}, 22),
    "kl-growing": ({"kl": [0.1] * 20 + [0.6] * 10}, 21),
    "entropy-collapsed": ({"entropy": [3.0] * 15 + [0.2] * 15}, 16),
    "groups-alike": ({"groups_alike": [0.5] * 8 + [0.95] * 22}, 13),
    "critic-blind": ({"explained_variance": [0.0] * 30}, 20),
    "guide-silent": ({"guide_empty": [0.0] * 10 + [30.0] * 20}, 12),
    "budget-nearly-spent": ({"guide_cost": [0.05] * 30}, 18),
}


def lines(**changes: list[float]) -> list[dict[str, Any]]:
    columns = {**HEALTHY, **changes}
    rows = [{name: values[i] for name, values in columns.items()} for i in range(30)]
    return [{"update": i + 1, "algorithm": "ppo", **row} for i, row in enumerate(rows)]


def test_a_healthy_run_is_told_nothing() -> None:
    assert Watch({"cost": 1.0, "then": "stop"}).look(lines()) == []


@pytest.mark.parametrize("name", ILL)
def test_each_is_said_once_where_it_begins(name: str) -> None:
    changes, first = ILL[name]
    found = Watch({"cost": 1.0, "then": "stop"}).look(lines(**changes))
    assert [(one.name, one.update) for one in found] == [(name, first)]
    assert str(found[0]).endswith(f"See docs/warnings.md#{name}.")


def test_a_reward_that_stays_at_its_best_is_no_fault() -> None:
    assert Watch().look(lines(reward=[0.1] * 5 + [1.0] * 25)) == []


def test_evaluations_and_runs_without_numbers_are_passed_over() -> None:
    history = [{"update": i, "validation/reward": 0.0} for i in range(30)]
    assert Watch().look([*history, *({"update": i, "algorithm": "bc"} for i in range(30))]) == []


def test_every_warning_has_its_place_in_the_docs() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "warnings.md").read_text()
    anchors = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert anchors == [*CHECKS, "budget-nearly-spent"] == [*ILL]


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


def nothing(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    return [0.0] * len(completions)


def test_a_warning_reads_as_a_sentence_with_its_anchor() -> None:
    assert str(Found("kl-growing", 3, "So it is.")) == "So it is. See docs/warnings.md#kl-growing."
