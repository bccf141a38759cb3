"""Recipes that come with the library are found by name from any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipe_files import ROOT, loads
from rlgf.compare.comparison import load_comparison
from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.evaluation.winrate import http_judge
from rlgf.models.loading import ModelConfig, load_language_model
from rlgf.packaged import RECIPES, find_recipe, recipe_names, recipe_path, recipe_summary, recipe_that_writes
from rlgf.reward_models.train import load_reward_recipe


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test here may find a recipe because it runs in the checkout."""
    monkeypatch.chdir(tmp_path)


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


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("imbd", ", but one called imdb;"),
        ("small_gpt", ", but one called start/small_gpt;"),
        ("imdb.yaml", ", but one called imdb;"),
        ("recipes/imdb.yaml", ", but one called imdb;"),
        ("../recipes/imdb", ";"),
        ("zzzzzz", ";"),
        ("training.updates", ";"),
    ],
)
def test_an_unknown_name_is_one_sentence_with_the_nearest(source: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(source, "algorithm=ppo")
    assert str(caught.value) == (
        f"there is no recipe {source}{hint} give the path of a YAML file or a name that `rlgf recipes` lists, "
        "or an override such as seed=1, without spaces around its equals sign."
    )


@pytest.mark.parametrize(("given", "there"), [("my.yml", "my.yaml"), ("my.yaml", "my.yml"), ("my", "my.yml")])
def test_a_file_of_that_name_with_another_ending_is_named(tmp_path: Path, given: str, there: str) -> None:
    (tmp_path / there).touch()
    with pytest.raises(UserError, match=f"there is no recipe {given}, but one called {there}; give"):
        find_recipe(given)


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
