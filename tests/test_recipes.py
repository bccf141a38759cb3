"""Recipes that come with the library: found by name from any folder, whole, listed, and part of the wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlgf.cli import app
from rlgf.compare.grid import load_comparison
from rlgf.config import Config, load_config
from rlgf.errors import UserError
from rlgf.evaluation.winrate import http_judge
from rlgf.models.loading import ModelConfig, load_language_model
from rlgf.packaged import RECIPES, find_recipe, recipe_names, recipe_path, recipe_summary, recipe_that_writes
from rlgf.recipe import read_source
from rlgf.reward_models.train import load_reward_recipe
from rlgf.tasks import Task, build_task

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test here may find a recipe because it runs in the checkout."""
    monkeypatch.chdir(tmp_path)


def base_of(name: str) -> list[str]:
    """What a recipe that is not whole by itself is laid over."""
    text = recipe_summary(name)
    if text.startswith("Over "):
        return [text.removeprefix("Over ").partition(",")[0]]
    return ["imdb"] if "policy" not in read_source(name) or "task" not in read_source(name) else []


def loads(name: str) -> Sequence[object]:
    """Read a packaged recipe as its command does."""
    folder, _, inner = name.rpartition("/")
    if folder == "rewards":
        return [load_reward_recipe(inner)]
    if folder == "judges":
        return [http_judge(inner)]
    if "settings" in read_source(name):
        comparison = load_comparison(inner)
        return [
            *(load_config(*sources) for sources in comparison.prepare),
            *(comparison.config(*cell) for cell in comparison.grid() if cell[2] == 0),
        ]
    extra = ["reward=sentiment"] if name == "tldr" else []  # it asks for a reward of one's own
    return [load_config(*base_of(name), name, *extra)]


def test_there_are_as_many_names_as_files() -> None:
    names = recipe_names()
    assert {"imdb", "smollm2", "start/small_gpt", "algorithms/gail", "compare/imdb"} <= set(names)
    assert (
        len(names)
        == len(set(names))
        == len([path for path in (ROOT / "recipes").rglob("*.yaml") if path.parent.name != "accelerate"])
    )
    assert names.index("tldr_original") < names.index("algorithms/distill"), "those in no folder come first"


@pytest.mark.parametrize("name", recipe_names())
def test_a_packaged_recipe_is_found_by_name_and_fits(name: str) -> None:
    assert find_recipe(name) == recipe_path(name)
    assert loads(name)


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_begins_with_one_sentence(name: str) -> None:
    assert recipe_path(name).read_text().startswith("# ")
    summary = recipe_summary(name)
    assert summary[0].isupper()
    assert summary.endswith(".")
    assert ". " not in summary
    assert len(summary) <= 120


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


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("imbd", ", but one called imdb;"),
        ("small_gpt", ", but one called start/small_gpt;"),
        ("imdb.yaml", ", but one called imdb;"),
        ("recipes/imdb.yaml", ", but one called imdb;"),
        ("../recipes/imdb", ";"),
        ("zzzzzz", ";"),
    ],
)
def test_an_unknown_name_is_one_sentence_with_the_nearest(source: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(source, "algorithm=ppo")
    assert str(caught.value) == (
        f"there is no recipe {source}{hint} give the path of a YAML file or a name that `rlgf recipes` lists, "
        "or an override such as seed=1."
    )


def test_each_command_looks_into_its_own_folder_first() -> None:
    assert find_recipe("imdb") == RECIPES / "imdb.yaml"
    assert (
        find_recipe("imdb", "compare")
        == find_recipe("compare/imdb", "compare")
        == RECIPES / "compare/imdb.yaml"
    )
    assert find_recipe("server", "judges") == RECIPES / "judges/server.yaml"
    with pytest.raises(UserError, match="there is no comparison imbd, but one called imdb; give the path"):
        load_comparison("imbd")
    with pytest.raises(UserError, match="there is no recipe verdict, but one called verdicts;"):
        load_reward_recipe("verdict")
    with pytest.raises(UserError, match=r"there is no judge servr, but one called server; .* lists\.$"):
        http_judge("servr")


@pytest.mark.parametrize(
    "name",
    ["start/small_gpt", "start/positive_gpt", "start/negative_gpt", "start/commongen", "start/reasoning"],
)
def test_a_start_that_is_not_there_says_which_recipe_makes_it(name: str) -> None:
    folder = f"{load_config(name).folder}/policy"
    assert recipe_that_writes(folder) == name
    with pytest.raises(UserError) as caught:
        load_language_model(ModelConfig(model=folder))
    assert str(caught.value).endswith(f"there is no folder {folder}; `rlgf train {name}` makes it.")
    assert recipe_that_writes("runs/start/other/policy") is None


def test_the_notes_of_a_comparison_lie_beside_it() -> None:
    assert load_comparison("imdb").notes == RECIPES / "compare/imdb_notes.md"
    assert load_comparison("imdb", ["notes=null"]).notes is None
    with pytest.raises(UserError, match=r"'notes': there is no file .*/compare/none\.md; .* own folder\.$"):
        load_comparison("imdb", ["notes=none.md"])


def test_the_command_lists_every_recipe_with_its_sentence() -> None:
    done = CliRunner().invoke(app, ["recipes"], env={"COLUMNS": "250"})
    assert done.exit_code == 0
    for name in recipe_names():
        assert any(name in line and recipe_summary(name) in line for line in done.output.splitlines()), name
    assert str(RECIPES.resolve()) in done.output.replace("\n", "")


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
    file = Path(__file__).parents[2] / f"recipes/{recipe}.yaml"
    config = load_config(file, "reward=sentiment", "algorithm=ppo++")
    assert isinstance(build_task(config.task.name, config.task.options), Task)


def test_the_recipe_of_tldr_needs_a_reward_of_yours() -> None:
    with pytest.raises(UserError, match="needs a reward"):
        load_config(Path(__file__).parents[2] / "recipes/tldr.yaml")


def test_the_stand_in_recipe_goes_over_the_one_of_imdb() -> None:
    recipes = Path(__file__).parents[2] / "recipes"
    config = load_config(recipes / "imdb.yaml", recipes / "review_verdicts.yaml")
    assert (config.task.name, config.rollout.min_response_tokens) == ("review-verdicts", 0)
