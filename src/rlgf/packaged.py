"""The recipes that come with the library, found by name wherever it is installed."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from rlgf.errors import UserError

RECIPES = Path(__file__).parent / "recipes"
"""In a checkout a link to the folder at its top; in an installed library the files themselves."""


def recipe_names() -> list[str]:
    """The name of every recipe: its path below the folder without the suffix, such as ``start/small_gpt``.

    Those that lie in no folder come first. Settings of launchers, in `accelerate`, are not recipes.
    """
    found = (path for path in RECIPES.rglob("*.yaml") if path.parent != RECIPES / "accelerate")
    paths = [path.relative_to(RECIPES).with_suffix("") for path in found]
    return [path.as_posix() for path in sorted(paths, key=lambda path: (len(path.parts), path))]


def recipe_path(name: str) -> Path:
    """Where the recipe of a name lies; it need not exist."""
    return RECIPES / f"{name}.yaml"


def recipe_summary(name: str) -> str:
    """The sentence that a packaged recipe begins with."""
    return recipe_path(name).read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()


def recipe_that_writes(folder: str | Path) -> str | None:
    """The name of the packaged recipe whose run saves its policy in a folder, such as ``runs/start/small-gpt/policy``."""
    line = f"output: {Path(folder).parent.as_posix()}"
    return next((name for name in recipe_names() if line in recipe_path(name).read_text().splitlines()), None)


def find_recipe(source: str | Path, folder: str = "", what: str = "recipe") -> Path:
    """The file that a user means: one of their own by its path, else a packaged one by its name.

    Args:
        source: a path, or a name as in `recipe_names`.
        folder: where a name is looked for first: in ``compare`` the name ``imdb`` means ``compare/imdb``.
        what: how a message calls it.

    Raises:
        UserError: there is neither such a file nor such a name.
    """
    path, names = Path(source), recipe_names()
    if os.path.isfile(path):
        return path
    for name in (f"{folder}/{source}", str(source)):
        if name in names:
            return recipe_path(name)
    if os.path.isdir(path):
        raise UserError(f"there is no {what} {path}, which is a folder; give the path of a YAML file in it.")
    inside = [name.removeprefix(f"{folder}/") for name in names if name.startswith(folder)]
    # What follows a full stop is else a part of a key, as in training.updates.
    stem = path.with_suffix("") if path.suffix in (".yaml", ".yml") else path
    wanted = str(stem).removeprefix("recipes/")  # as the docs name those of a checkout
    twins = [str(twin) for end in (".yaml", ".yml") if os.path.isfile(twin := path.with_suffix(end))]
    close = twins or difflib.get_close_matches(wanted, inside, n=1)
    hint = f", but one called {close[0]}" if close else ""
    also = (
        ", or an override such as seed=1, without spaces around its equals sign" if what == "recipe" else ""
    )
    raise UserError(
        f"there is no {what} {path}{hint}; give the path of a YAML file or a name that `rlgf recipes` lists{also}."
    )
