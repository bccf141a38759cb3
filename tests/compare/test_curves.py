"""Learning curves of a comparison: a picture depends on nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes

from rlgf.compare.comparison import Comparison
from rlgf.compare.curves import draw_curves, save_curves
from rlgf.compare.finished import Finished

CURVES = {"ppo": [[(0.0, 0.1), (10.0, 0.3)], [(0.0, 0.2), (12.0, 0.5), (20.0, 0.6)]]}


def test_the_same_curves_give_the_same_bytes(tmp_path: Path) -> None:
    one, same, other = (tmp_path / "new" / name for name in ("one.png", "same.png", "other.png"))
    for path, levels in ((one, {"guide": 0.7}), (same, {"guide": 0.7}), (other, {"guide": 0.2})):
        save_curves(path, "title", CURVES, levels)
    assert one.read_bytes() == same.read_bytes() != other.read_bytes()


def test_a_setting_has_a_picture_of_its_own_runs(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = {}
    monkeypatch.setattr("rlgf.compare.curves.save_curves", lambda path, *said: drawn.update({path: said}))
    runs = {
        (setting, "ppo", seed): Finished({}, 1.0, CURVES["ppo"][seed], [], {})
        for setting in ("plain", "another")
        for seed in (0, 1)
    }
    authors = {"plain": {"start": {"reward": 0.1}, "guide": {"reward": 0.7}}}
    (path,) = draw_curves(comparison, runs, authors)
    title, curves, levels = drawn[path]
    assert (path.name, title) == ("toy-plain.png", "toy, plain")
    assert curves == {"ppo": CURVES["ppo"]}
    assert levels == {"guide": 0.7}


def test_a_setting_without_a_reward_has_no_picture(comparison: Comparison) -> None:
    runs = {("plain", name, 0): Finished({"kl": 0.1}, 1.0, [], [], {}) for name in ("ppo", "ppo++")}
    assert draw_curves(comparison, runs, {"plain": {"guide": {"kl": 0.1}}}) == []


def test_an_algorithm_without_a_reward_has_no_curve(comparison: Comparison) -> None:
    runs = {
        ("plain", "ppo", 0): Finished({}, 1.0, CURVES["ppo"][0], [], {}),
        ("plain", "ppo++", 0): Finished({}, 1.0, [], [], {}),
    }
    (path,) = draw_curves(comparison, runs, {"plain": {"guide": {"kl": 0.1}}})
    assert path.exists()


def test_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    """A formula that cannot be read, or a sign that no font has, would end in an error or a warning."""
    curves = dict.fromkeys(("a $\\nonsense$ name", "\x1b[31mred\u202e"), CURVES["ppo"])
    save_curves(tmp_path / "one.png", "a $\\title$\x07", curves, {"guide $\\x$\x00": 0.5})
    assert (tmp_path / "one.png").exists()


def test_a_mean_ends_where_its_runs_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: the shorter of two runs has (5, 0.2) halfway, and both end at (15, 0.45) in the mean."""
    drawn: list[tuple[list[float], list[float]]] = []
    plot = Axes.plot

    def noted(self: Axes, x: Any, y: Any, **keywords: Any) -> Any:
        drawn.append((list(x), list(y)))
        return plot(self, x, y, **keywords)

    monkeypatch.setattr(Axes, "plot", noted)
    save_curves(tmp_path / "one.png", "title", CURVES, {})
    ((tokens, rewards),) = drawn
    assert tokens == pytest.approx([0, 8.5, 15])
    assert rewards == pytest.approx([0.15, 0.35, 0.45])
