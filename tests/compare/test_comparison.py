"""A whole grid on toys: it runs once, goes on where it stopped, and ends in tables and pictures."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml
from report_toys import run_folder, sample
from rich.console import Console

from rlgf.compare.grid import Comparison, collect_runs, load_comparison, run_comparison
from rlgf.compare.page import MOST_BYTES, write_page
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
    runs = collect_runs(comparison)
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
    with pytest.raises(UserError, match="baseline 'pppo' is not run: did you mean 'ppo'"):
        load_comparison(tmp_path / "compare.yaml", ["baseline=pppo"])


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
