"""The recipes of this checkout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlgf.compare.comparison import load_comparison
from rlgf.config import load_config
from rlgf.evaluation.winrate import http_judge
from rlgf.packaged import recipe_summary
from rlgf.recipe import read_source
from rlgf.reward_models.train import load_reward_recipe

ROOT = Path(__file__).parents[1]


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
