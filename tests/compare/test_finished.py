"""Finished runs go on elsewhere, from the file that keeps them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from rlgf.compare.finished import FinishedRuns, read_evaluations
from rlgf.compare.grid import Comparison, run_comparison
from rlgf.errors import UserError
from rlgf.run.display import Display

QUIET = Display(Console(quiet=True))


def test_rewards_stand_at_the_tokens_that_were_sampled_by_then(tmp_path: Path) -> None:
    lines = [
        {"update": 0, "validation/reward": 0.1, "validation/kl": 0},
        {"update": 1, "policy_tokens": 50},
        {"update": 2, "policy_tokens": 90},
        {"update": 2, "validation/reward": 0.4, "validation/kl": 0.2},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curve, frontier = read_evaluations(tmp_path)
    assert curve == [(0.0, 0.1), (90.0, 0.4)]
    assert frontier == [(0.0, 0.1), (0.2, 0.4)]


def test_kept_runs_are_not_run_again_where_their_folders_are_not(comparison: Comparison) -> None:
    """Unless the recipe says another thing now; a word about it may differ."""
    run_comparison(comparison, display=QUIET)
    written = (comparison.results / "toy.runs.json").read_text()
    table = (comparison.results / "toy.csv").read_text()
    page = (comparison.results / "toy.html").read_text()
    elsewhere = comparison.model_copy(update={"runs": comparison.runs / "elsewhere"})
    run_comparison(elsewhere, display=QUIET)
    assert not elsewhere.runs.exists()
    assert (comparison.results / "toy.runs.json").read_text() == written
    assert (comparison.results / "toy.csv").read_text() == table
    assert (comparison.results / "toy.html").read_text() == page

    changed = {**comparison.algorithms, "ppo++": ("algorithm=ppo++", "algorithm.gamma=0.5")}
    assert {
        algorithm
        for _, algorithm, _ in FinishedRuns(elsewhere.model_copy(update={"algorithms": changed})).read()
    } == {"ppo"}
    told = {**comparison.algorithms, "ppo": ("algorithm=ppo", "name=other")}
    assert len(FinishedRuns(elsewhere.model_copy(update={"algorithms": told})).read()) == 4


def test_a_torn_file_of_kept_runs_is_named(comparison: Comparison) -> None:
    comparison.results.mkdir()
    (comparison.results / "toy.runs.json").write_text('{"runs": {')
    with pytest.raises(UserError, match="restore it, or delete it"):
        run_comparison(comparison, display=QUIET)
