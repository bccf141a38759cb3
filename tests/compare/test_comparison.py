"""What a comparison runs, and recipes of one that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlgf.compare.comparison import Comparison, load_comparison
from rlgf.errors import UserError


def test_all_runs_have_the_same_budget(comparison: Comparison) -> None:
    configs = [comparison.config(*cell) for cell in comparison.grid()]
    assert (
        len({(c.training.updates, c.rollout.episodes, c.rollout.max_response_tokens) for c in configs}) == 1
    )
    assert len({c.folder for c in configs}) == len(configs)


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


def test_notes_are_shown_in_the_report_of_their_comparison() -> None:
    for notes in Path("recipes/compare").glob("*_notes.md"):
        found = load_comparison(notes.name.removesuffix("_notes.md")).notes
        assert found is not None
        assert found.name == notes.name


def test_a_comparison_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no comparison"):
        load_comparison(tmp_path / "none.yaml")


def test_the_recipe_of_a_run_is_told_from_a_comparison(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("task: imdb\nseed: 1\n")
    with pytest.raises(
        UserError, match=r"is the recipe of a run, and no comparison: run it with `rlgf train "
    ):
        load_comparison(tmp_path / "run.yaml")


def test_a_quick_look_is_two_seeds_under_a_name_of_its_own(comparison: Comparison, tmp_path: Path) -> None:
    quick = load_comparison(tmp_path / "compare.yaml", ["quick=true", "quick_over=[training.updates=1]"])
    assert (quick.name, quick.seeds) == ("toy-quick", 2)
    assert {seed for _, _, seed in quick.grid()} == {0, 1}
    assert quick.config("plain", "ppo", 0).training.updates == 1
    assert comparison.config("plain", "ppo", 0).training.updates == 2
    assert quick.folder("plain", "ppo", 0) != comparison.folder("plain", "ppo", 0)
