"""The commands that show what there is."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlgf.cli import app
from rlgf.packaged import RECIPES, recipe_names, recipe_summary


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test here may find a recipe because it runs in the checkout."""
    monkeypatch.chdir(tmp_path)


def test_the_command_lists_every_recipe_with_its_sentence() -> None:
    done = CliRunner().invoke(app, ["recipes"], env={"COLUMNS": "250"})
    assert done.exit_code == 0
    for name in recipe_names():
        assert any(name in line and recipe_summary(name) in line for line in done.output.splitlines()), name
    assert str(RECIPES.resolve()) in done.output.replace("\n", "")
