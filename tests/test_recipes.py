"""Recipes compose, go into the wheel, and say what they are for."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from recipe_files import ROOT
from rlgf.algorithms import ALGORITHMS
from rlgf.config import Config, load_config
from rlgf.errors import UserError
from rlgf.tasks import Task, build_task


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test here may find a recipe because it runs in the checkout."""
    monkeypatch.chdir(tmp_path)


def test_names_compose_with_overrides() -> None:
    config = load_config("imdb", "smollm2", "algorithm=ppo", "training.updates=3")
    assert (config.task.name, config.policy.model, config.policy.critic) == ("imdb", "smollm2-135m", "head")
    assert (config.name, config.algorithm.name, config.training.updates) == ("smollm2", "ppo", 3)
    assert load_config("imdb", "algorithm=grpo").algorithm.name == "grpo"
    assert load_config("imdb", "algorithms/gail").algorithm.name == "gail"


def test_a_file_of_ones_own_is_used_as_it_is() -> None:
    Path("imdb.yaml").write_text("{name: mine, task: mine.py:task, policy: {model: gpt2}, reward: sentiment}")
    own: Config = load_config("imdb.yaml")
    assert (own.name, own.task.name, own.rollout) == (
        "mine",
        "mine.py:task",
        load_config("imdb.yaml").rollout,
    )
    assert load_config("imdb").name == "imdb", "a name has no suffix"
    Path("imdb").mkdir()
    assert load_config("imdb").name == "imdb", "a folder is no recipe"
    Path("imdb").rmdir()
    Path("imdb.yaml").rename("imdb")
    assert load_config("imdb").name == "mine"


def test_a_wheel_holds_every_recipe(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("src", "recipes"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = (source / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        files = set(packed.namelist())
        for path in (ROOT / "recipes").rglob("*.*"):
            inside = f"rlgf/recipes/{path.relative_to(ROOT / 'recipes').as_posix()}"
            assert packed.read(inside) == path.read_bytes()
    assert {"rlgf/py.typed", "rlgf/cli/runs.py", "rlgf/run/trainer.py"} <= files


def test_the_version_is_said_alike_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    newest = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## [")]
    assert next(line for line in newest if "Unreleased" not in line).startswith(f"## [{version}]")
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("recipe", ["commongen", "tldr"])
def test_the_recipes_name_their_task(recipe: str) -> None:
    file = ROOT / f"recipes/{recipe}.yaml"
    config = load_config(file, "reward=sentiment", "algorithm=ppo++")
    assert isinstance(build_task(config.task.name, config.task.options), Task)


def test_the_recipe_of_tldr_needs_a_reward_of_yours() -> None:
    with pytest.raises(UserError, match="needs a reward"):
        load_config(ROOT / "recipes/tldr.yaml")


def test_the_stand_in_recipe_goes_over_the_one_of_imdb() -> None:
    recipes = ROOT / "recipes"
    config = load_config(recipes / "imdb.yaml", recipes / "review_verdicts.yaml")
    assert (config.task.name, config.rollout.min_response_tokens) == ("review-verdicts", 0)


def test_a_hint_in_words_is_not_cut_at_a_random_length() -> None:
    (row,) = load_config("imdb", "algorithms/hints").algorithm.rows
    assert row.help.length.whole
    assert row.help.success is not None


def test_each_row_has_a_recipe_in_the_matrix_of_what_runs_with_what(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded here, run by `make matrix`."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.chdir(ROOT)
    matrix = importlib.import_module("matrix")
    assert set(matrix.ALGORITHMS) == set(ALGORITHMS) - {"offline-dpo"}
    for algorithm in matrix.ALGORITHMS:
        assert load_config(*matrix.command(algorithm, "tldr", "LoRA")).algorithm.name == algorithm
