"""Finished runs go on elsewhere, from the file that keeps them."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from rlgf.compare.comparison import Comparison, load_comparison
from rlgf.compare.finished import FinishedRuns, _measured, read_evaluations
from rlgf.compare.grid import run_comparison, train_once
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


def test_a_number_that_was_none_is_not_a_number(tmp_path: Path) -> None:
    """As an infinite perplexity, which JSON has no word for."""
    progress = {"policy_tokens": 5, "guide_tokens": 0, "seconds": 1.0}
    found = {"totals": {"policy": {"reward": 0.5, "output_perplexity": None}}, "progress": progress}
    (tmp_path / "summary.json").write_text(json.dumps(found))
    line = {"update": 0, "policy_tokens": 5, "validation/reward": None, "validation/kl": None}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    run = _measured(tmp_path / "summary.json")
    assert math.isnan(run.totals["output_perplexity"])
    assert [list(map(math.isnan, point)) for point in run.frontier] == [[True, True]]


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


def test_a_finished_run_of_another_configuration_is_not_taken_for_this_one(comparison: Comparison) -> None:
    """Neither a run of the grid nor one that it begins with; nothing is run, written or lost."""
    run_comparison(comparison, display=QUIET)
    kept = (comparison.results / "toy.runs.json").read_text()
    changed = comparison.model_copy(
        update={"algorithms": {**comparison.algorithms, "ppo++": ("algorithm=ppo++", "algorithm.gamma=0.5")}}
    )
    folder = comparison.folder("plain", "ppo++", 0)
    for report_only in (True, False):
        with pytest.raises(UserError, match="seed-0 has a finished run of another configuration"):
            run_comparison(changed, report_only=report_only, display=QUIET)
    with pytest.raises(UserError, match="move or remove that folder"):
        train_once(changed.config("plain", "ppo++", 0), QUIET)
    assert (comparison.results / "toy.runs.json").read_text() == kept
    assert (folder / "summary.json").exists()

    config = folder / "config.yaml"
    config.write_text(config.read_text() + "of_another_version: 1\n")
    with pytest.raises(UserError, match=r"whose configuration cannot be read .*of_another_version"):
        run_comparison(comparison, display=QUIET)


def test_what_start_and_guides_measured_is_of_one_configuration(comparison: Comparison) -> None:
    run_comparison(comparison.model_copy(update={"seeds": 1}), display=QUIET)
    measured = FinishedRuns(comparison).authors()
    assert list(measured["plain"]) == ["start", "guide", "reference text"]

    def found(**changes: object) -> object:
        changed = comparison.model_copy(update={"runs": comparison.runs / "elsewhere", **changes})
        file = FinishedRuns(changed).authors_file("plain")
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(FinishedRuns(comparison).authors_file("plain"), file)
        here = FinishedRuns(changed).authors()
        file.unlink()
        assert FinishedRuns(changed).authors() == here, "as the kept file says it"
        return here

    algorithms = comparison.algorithms
    assert found() == measured
    assert found(algorithms={**algorithms, "grpo": ("algorithm=guided-grpo",)}) == measured
    assert found(settings={"plain": (*comparison.settings["plain"], "evaluation.test_samples=6")}) == {
        "plain": {}
    }
    other = ("algorithm=ppo++", f"guide.model={comparison.runs.parent / 'start'}")
    assert found(algorithms={**algorithms, "other": other}) == {"plain": {}}


def test_the_file_of_kept_runs_loses_none(comparison: Comparison) -> None:
    """Neither of a cell that today's grid leaves out, nor of one whose recipe says another thing now."""
    run_comparison(comparison, display=QUIET)
    file = comparison.results / "toy.runs.json"
    written = json.loads(file.read_text())
    changed = {**comparison.algorithms, "ppo++": ("algorithm=ppo++", "algorithm.gamma=0.5")}
    elsewhere = {"runs": comparison.runs / "elsewhere"}
    for other in ({"seeds": 1}, {"algorithms": changed}):
        smaller = comparison.model_copy(update={**elsewhere, **other})
        run_comparison(smaller, report_only=True, display=QUIET)
        assert json.loads(file.read_text()) == written
    for now in ("training.updates=3", "evaluation.test_samples=6"):
        settings = {"plain": (*comparison.settings["plain"], now)}
        FinishedRuns(comparison.model_copy(update={**elsewhere, "settings": settings})).keep()
        assert json.loads(file.read_text()) == written


def test_what_changes_no_number_may_change(comparison: Comparison) -> None:
    run_comparison(comparison.model_copy(update={"seeds": 1}), display=QUIET)
    free = ("training.process_timeout=100", "rollout.max_batch_tokens=4000", "update.max_micro_tokens=99")
    changed = {"seeds": 1, "settings": {"plain": (*comparison.settings["plain"], *free)}}
    for runs in (comparison.runs, comparison.runs / "elsewhere"):
        again = FinishedRuns(comparison.model_copy(update={**changed, "runs": runs}))
        assert len(again.read()) == 2
        assert again.authors()["plain"]
    assert len(FinishedRuns(comparison.model_copy(update={"seeds": 1})).read()) == 2


@pytest.mark.long
@pytest.mark.parametrize(
    "name", sorted(path.name.split(".")[0] for path in Path("results").glob("*.runs.json"))
)
def test_the_committed_runs_are_those_of_the_recipes(name: str) -> None:
    kept = json.loads(Path(f"results/{name}.runs.json").read_text())
    finished = FinishedRuns(load_comparison(name))
    assert len(finished.read()) == len(kept["runs"])
    assert all(finished.authors()[setting] for setting in kept["authors"])


def test_a_torn_file_of_kept_runs_is_named(comparison: Comparison) -> None:
    comparison.results.mkdir()
    (comparison.results / "toy.runs.json").write_text('{"runs": {')
    with pytest.raises(UserError, match="restore it, or delete it"):
        run_comparison(comparison, display=QUIET)
