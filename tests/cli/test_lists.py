"""The commands that show what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlgf.algorithms import ALGORITHMS
from rlgf.cli import app
from rlgf.errors import UserError
from rlgf.guides.answer_cache import GuideCache
from rlgf.packaged import RECIPES, recipe_names, recipe_summary


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test here may find a recipe because it runs in the checkout."""
    monkeypatch.chdir(tmp_path)


def test_no_name_of_an_algorithm_is_broken_in_a_narrow_window() -> None:
    done = CliRunner().invoke(app, ["algorithms"], env={"COLUMNS": "80"})
    assert [name for name in ALGORITHMS if f" {name} " not in done.output] == []


def test_the_command_lists_every_recipe_with_its_sentence() -> None:
    done = CliRunner().invoke(app, ["recipes"], env={"COLUMNS": "250"})
    assert done.exit_code == 0
    for name in recipe_names():
        assert any(name in line and recipe_summary(name) in line for line in done.output.splitlines()), name
    assert str(RECIPES.resolve()) in done.output.replace("\n", "")


def test_a_guide_cache_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["guide", "cache", "--folder", str(tmp_path / "typo")])
    assert isinstance(done.exception, UserError)
    assert re.search(r"no guide cache in .*typo.*'guide.cache'", str(done.exception))
    assert not (tmp_path / "typo").exists()
    GuideCache(str(tmp_path / "made")).close()
    done = CliRunner().invoke(app, ["guide", "cache", "--folder", str(tmp_path / "made")])
    assert done.exit_code == 0
