"""A whole grid on toys: it runs once, goes on where it stopped, and ends in tables and pictures."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml
from report_toys import run_folder, sample
from rich.console import Console

from rlgf.compare.finished import Finished, FinishedRuns
from rlgf.compare.grid import Comparison, load_comparison, run_comparison
from rlgf.compare.page import MOST_BYTES, write_page
from rlgf.compare.tables import write_tables
from rlgf.errors import UserError
from rlgf.run.checkpoint import save_policy
from rlgf.run.display import Display
from toys import letter_gpt

QUIET = Display(Console(quiet=True))


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    save_policy(letter_gpt(), tmp_path / "start")
    save_policy(letter_gpt(seed=1), tmp_path / "guide")
    base = {
        "task": "toys:LetterTask",
        "policy": {"model": str(tmp_path / "start")},
        "guide": {"model": str(tmp_path / "guide")},
        "reward": "toys:share_of_a",
        "rollout": {"episodes": 8, "max_prompt_tokens": 4, "max_response_tokens": 6},
        "update": {"minibatch": 8, "epochs": 1},
        "training": {"updates": 2, "trackers": []},
        "evaluation": {"every": 1, "samples": 8, "test_samples": 8},
    }
    recipe = {
        "name": "toy",
        "settings": {"plain": [str(tmp_path / "base.yaml")]},
        "algorithms": {"ppo": ["algorithm=ppo"], "ppo++": ["algorithm=ppo++"]},
        "seeds": 2,
        "baseline": "ppo",
        "metrics": ["reward", "kl", "output_perplexity"],
        "runs": str(tmp_path / "runs"),
        "results": str(tmp_path / "results"),
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(recipe))
    return load_comparison(tmp_path / "compare.yaml")


def test_a_grid_ends_in_tables_and_pictures_and_runs_nothing_twice(comparison: Comparison) -> None:
    run_comparison(comparison, display=QUIET)
    results = comparison.results
    with (results / "toy.csv").open() as file:
        rows = {row["who"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["start", "guide", "reference text", "ppo", "ppo++"]
    assert rows["reference text"]["reward"] == "1.0"
    runs = FinishedRuns(comparison).read()
    mean = sum(runs["plain", "ppo", seed].totals["reward"] for seed in (0, 1)) / 2
    assert float(rows["ppo"]["reward"]) == pytest.approx(mean)
    difference = sum(
        runs["plain", "ppo++", seed].totals["reward"] - runs["plain", "ppo", seed].totals["reward"]
        for seed in (0, 1)
    )
    assert float(rows["ppo++"]["reward minus ppo"]) == pytest.approx(difference / 2)
    assert "| ppo++ | 2 |" in (results / "toy.md").read_text()
    assert float(rows["ppo"]["guide tokens"]) == 0 < float(rows["ppo++"]["guide tokens"])
    assert (
        float(rows["ppo"]["policy tokens"])
        == sum(r.tokens["policy"] for (_, n, _), r in runs.items() if n == "ppo") / 2
    )
    assert json.loads((results / "toy.json").read_text())[0]["who"] == "start"
    assert (results / "toy-plain.png").stat().st_size > 1000
    assert "[toy.html](toy.html)" in (results / "toy.md").read_text()

    written = {path: path.stat().st_mtime_ns for path in comparison.runs.rglob("summary.json")}
    assert len(written) == 4
    assert len(list(comparison.runs.rglob("policy/model.safetensors"))) == 4
    assert not list(comparison.runs.rglob("checkpoints"))
    run_comparison(comparison, display=QUIET)
    assert {path: path.stat().st_mtime_ns for path in comparison.runs.rglob("summary.json")} == written


def finished(frontier: list[tuple[float, float]], **totals: float) -> Finished:
    return Finished(totals, 60.0, [(0.0, 0.0), (9.0, 1.0)], frontier, {"policy": 9.0, "guide": 0.0})


def test_algorithms_are_compared_by_the_judge_and_at_equal_kl(comparison: Comparison) -> None:
    """By hand: last KLs 0.1, 0.4, 0.2, 0.6 have the median 0.3; up to there are 0.5 and 0.75, 0.8 and 0.55."""
    comparison = comparison.model_copy(update={"metrics": ("reward", "judge", "kl")})
    runs = {
        ("plain", "ppo", 0): finished([(0.0, 0.2), (0.1, 0.5)], reward=0.5, judge=0.6, kl=0.1),
        ("plain", "ppo", 1): finished([(0.0, 0.3), (0.4, 0.9)], reward=0.9, judge=0.5, kl=0.4),
        ("plain", "ppo++", 0): finished([(0.0, 0.2), (0.2, 0.8)], reward=0.7, judge=0.9, kl=0.2),
        ("plain", "ppo++", 1): finished([(0.0, 0.2), (0.6, 0.9)], reward=0.9, judge=0.7, kl=0.6),
    }
    write_tables(comparison, runs, {"plain": {}})
    ppo, guided = json.loads((comparison.results / "toy.json").read_text())
    assert guided["judge minus ppo"] == pytest.approx(0.25)
    assert "judge minus ppo" not in ppo
    assert ppo["equal KL"] == guided["equal KL"] == pytest.approx(0.3)
    assert ppo["reward at equal KL"] == pytest.approx(0.625)
    assert guided["reward at equal KL"] == pytest.approx(0.675)
    assert "Equal KL is 0.30 nats per token" in (comparison.results / "toy.md").read_text()


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


def test_a_grid_has_a_page_whose_groups_are_its_algorithms(comparison: Comparison) -> None:
    """Also where runs were made by versions whose configurations have other fields."""
    for setting, algorithm, seed in comparison.grid():
        samples = [sample(1, i, [f"{algorithm} {seed} "] * 400) for i in range(16)]
        folder = run_folder(
            comparison.folder(setting, algorithm, seed), samples, seed=seed, algorithm=algorithm
        )
        config = yaml.safe_load((folder / "config.yaml").read_text()) | {f"new in {seed}": 1}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    path = write_page(comparison, reversed(list(comparison.grid())))
    page = path.read_text()
    names = json.loads(page.split('id="names">')[1].split("</script>")[0])
    assert names["groups"] == ["ppo", "ppo++"]
    assert names["runs"] == ["ppo, seed 0", "ppo, seed 1", "ppo++, seed 0", "ppo++, seed 1"]
    assert path == comparison.results / "toy.html"
    assert path.stat().st_size < MOST_BYTES < 1_000_000


def test_all_runs_have_the_same_budget(comparison: Comparison) -> None:
    configs = [comparison.config(*cell) for cell in comparison.grid()]
    assert (
        len({(c.training.updates, c.rollout.episodes, c.rollout.max_response_tokens) for c in configs}) == 1
    )
    assert len({c.folder for c in configs}) == len(configs)


def test_a_report_without_runs_says_so(comparison: Comparison) -> None:
    with pytest.raises(UserError, match="no run of 'toy' has finished"):
        run_comparison(comparison, report_only=True, display=QUIET)


def test_a_baseline_that_is_not_run_is_refused(tmp_path: Path, comparison: Comparison) -> None:
    with pytest.raises(
        UserError, match=r"baseline 'pppo' is not run: did you mean 'ppo'\? Known: ppo, ppo\+\+\.$"
    ):
        load_comparison(tmp_path / "compare.yaml", ["baseline=pppo"])


def test_a_setting_may_have_seeds_of_its_own(comparison: Comparison, tmp_path: Path) -> None:
    changed = {"settings": {"long": ("base.yaml",), "short": ("base.yaml",)}, "algorithms": {"ppo": ()}}
    grid = comparison.model_copy(update={**changed, "seeds": 3, "seeds_in": {"short": 1}}).grid()
    assert list(grid) == [("long", "ppo", 0), ("short", "ppo", 0), ("long", "ppo", 1), ("long", "ppo", 2)]
    with pytest.raises(UserError, match="seeds_in names 'plan': did you mean 'plain'"):
        load_comparison(tmp_path / "compare.yaml", ["seeds_in={plan: 3}"])


def test_a_comparison_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no comparison"):
        load_comparison(tmp_path / "none.yaml")


def test_a_quick_look_is_two_seeds_under_a_name_of_its_own(comparison: Comparison, tmp_path: Path) -> None:
    quick = load_comparison(tmp_path / "compare.yaml", ["quick=true", "quick_over=[training.updates=1]"])
    assert (quick.name, quick.seeds) == ("toy-quick", 2)
    assert {seed for _, _, seed in quick.grid()} == {0, 1}
    assert quick.config("plain", "ppo", 0).training.updates == 1
    assert comparison.config("plain", "ppo", 0).training.updates == 2
    assert quick.folder("plain", "ppo", 0) != comparison.folder("plain", "ppo", 0)
