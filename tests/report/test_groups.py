"""Runs that differ in nothing but their seed are one curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlgf.report.groups import grouped
from rlgf.report.runs import Run


def run(folder: str, seed: int = 0, **config: Any) -> Run:
    return Run(Path("/runs") / folder, {"name": folder, "seed": seed, **config} if config else {}, [], [])


def test_seeds_of_one_configuration_are_one_group() -> None:
    runs = [
        run("ppo/seed-0", 0, algorithm="ppo", training={"updates": 9, "checkpoint_every": 1}),
        run("grpo/seed-0", 0, algorithm="grpo"),
        run("ppo/seed-1", 1, algorithm="ppo", training={"updates": 9}, evaluation={"every": 2}),
    ]
    first, second = grouped(runs)
    assert (first.name, list(first.runs)) == ("ppo", [runs[0], runs[2]])
    assert list(first.labels) == ["ppo, seed 0", "ppo, seed 1"]
    assert (second.name, list(second.labels)) == ("grpo", ["grpo"])


def test_whatever_else_changes_results_is_another_group() -> None:
    runs = [
        run("a", 0, training={"updates": 9}),
        run("b", 1, training={"updates": 90}),
        run("c", 2, training={"updates": 9, "policy_tokens": 50}),
        run("d", 3, training={"updates": 9, "async_steps": 1}),
        run("e", 4, training={"updates": 9}, of_another_version=1),
    ]
    assert [list(group.runs) for group in grouped(runs)] == [[run] for run in runs]


def test_a_second_run_of_one_seed_is_another_group() -> None:
    """Else an interval over seeds would count one seed twice."""
    first, other, again, last = (run(f"{i}", seed, algorithm="ppo") for i, seed in enumerate((0, 1, 0, 1)))
    assert [list(group.runs) for group in grouped([first, other, again, last])] == [
        [first, other],
        [again, last],
    ]


def test_a_run_without_a_configuration_stands_alone() -> None:
    assert [group.name for group in grouped([run("a"), run("b")])] == ["a", "b"]
    (alone,) = grouped([run("mine", algorithm="ppo")])
    assert alone.name == "mine", "a single run has its own name"


def test_no_two_runs_have_one_label() -> None:
    one, other = run("x/run-1", 1, algorithm="ppo"), run("x/run-1/again", 1, algorithm="ppo")
    assert len({label for group in grouped([one, other]) for label in group.labels}) == 2
    names = [group.name for group in grouped([run("seed-1", 1, a=1), run("seed-2", 1, a=2)])]
    assert len(set(names)) == 2
