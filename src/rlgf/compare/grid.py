"""Grids of algorithms and seeds over recipes: run the missing ones, then tabulate."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from rlgf import distributed
from rlgf.compare.comparison import Comparison
from rlgf.compare.curves import draw_curves
from rlgf.compare.finished import FinishedRuns, has_finished
from rlgf.compare.tables import write_tables
from rlgf.config import Config, load_config
from rlgf.errors import UserError
from rlgf.jsontext import to_json
from rlgf.report.groups import Group
from rlgf.report.page import render
from rlgf.report.runs import read_run
from rlgf.run.checkpoint import latest_checkpoint
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from rlgf.run.whole_folder import write_whole
from rlgf.types import Author


def run_comparison(
    comparison: Comparison, *, report_only: bool = False, display: Display | None = None
) -> None:
    """Train what has not been trained yet, evaluate start and guide, and write tables, curves and the page of the runs whose
    folders are there.

    Every configuration is checked before the first run starts. A finished run keeps its policy, metrics and
    texts; its checkpoints are deleted. Where one fails, the others are trained all the same.

    Raises:
        UserError: a launcher has started several processes, a run's recipe does not fit, a folder has a finished run of another configuration, or nothing has
            finished to report on; or, once all is written, a run has failed.
    """
    distributed.require_one("a comparison")
    display = display or Display(goes_on="the comparison goes on where it is run again")
    finished = FinishedRuns(comparison)
    failed = {} if report_only else _run_missing(finished, display)
    runs, authors = finished.read(), finished.authors()
    if not runs:
        if failed:
            raise next(iter(failed.values()))
        raise UserError(f"no run of '{comparison.name}' has finished: run it without --report-only.")
    written = [
        finished.keep(),
        *write_tables(comparison, runs, authors),
        *draw_curves(comparison, runs, authors),
    ]
    # Texts are in the folders alone.
    here = [cell for cell in runs if comparison.folder(*cell).exists()]
    if here:
        written.append(write_page(comparison, here))
    for path in written:
        display.note(f"Wrote {path}")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(finished.configs)} runs failed, and are not in the tables: {', '.join(failed)}. The "
            "reason stands above at each; run the comparison again to try them again."
        )


def _run_missing(finished: FinishedRuns, display: Display) -> dict[str, UserError]:
    """Train whatever has not finished anywhere, after what it starts from.

    Returns:
        Which runs failed, and why.
    """
    failed: dict[str, UserError] = {}
    runs, authors, comparison = finished.read(), finished.authors(), finished.comparison
    if len(runs) < len(finished.configs) or not all(authors.values()):
        for sources in comparison.prepare:
            train_once(load_config(*sources), display)
    # First, so that the table of a grid that is interrupted says where its runs began.
    for setting in comparison.settings:
        if not authors[setting]:
            _measure_authors(finished, setting, display)
    for number, (cell, config) in enumerate(finished.configs.items(), start=1):
        name = " ".join(map(str, cell))
        display.note(f"[{number}/{len(finished.configs)}] {name}")
        if cell in runs:
            display.note("is finished.")
            continue
        try:
            train_once(config, display)
        except UserError as error:
            display.note(f"failed: {error}")
            failed[name] = error
            continue
        # Nothing goes on with a finished run, and the optimizers of a whole grid would fill the disk.
        shutil.rmtree(config.folder / "checkpoints", ignore_errors=True)
        finished.keep()
    return failed


def train_once(config: Config, display: Display) -> None:
    """Train unless the run has finished; go on from its newest checkpoint where there is one. Raises what `has_finished`
    does."""
    if has_finished(config):
        display.note(f"{config.folder} is finished.")
        return
    resume = latest_checkpoint(config.folder / "checkpoints") is not None
    with closing(Trainer(config, display=display)) as trainer:
        trainer.train(resume=resume)


def _measure_authors(finished: FinishedRuns, setting: str, display: Display) -> None:
    """The start policy, each guide and the data's own texts, if any, on the test split, once a setting."""
    configs = finished.author_configs(setting)
    measured: dict[str, dict[str, float]] = {}
    with closing(Trainer(configs.pop("start"), display=display)) as trainer:
        measured["start"] = trainer.evaluate(Author.POLICY).totals
        referenced = trainer.has_references("test")
        reference = trainer.evaluate(Author.REFERENCE).totals if referenced else None
    for name, config in configs.items():
        with closing(Trainer(config, display=display)) as trainer:
            measured[name] = trainer.evaluate(Author.GUIDE).totals
    if reference is not None:
        measured["reference text"] = reference
    path = finished.authors_file(setting)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, to_json(finished.authors_record(setting, measured), indent=1))


MOST_BYTES = 900_000
"""Of the page, which is kept with the tables: small enough for a repository and for a mail."""


def write_page(comparison: Comparison, cells: Iterable[tuple[str, str, int]]) -> Path:
    """Write the report of finished runs beside the tables; the seeds of an algorithm in a setting are one group."""
    grid: dict[str, list[tuple[str, str, int]]] = {}
    for setting, algorithm, seed in cells:
        name = algorithm if len(comparison.settings) == 1 else f"{setting}, {algorithm}"
        grid.setdefault(name, []).append((setting, algorithm, seed))
    groups = [
        Group(
            name,
            [read_run(comparison.folder(*cell)) for cell in sorted(members)],
            [f"{name}, seed {seed}" for _, _, seed in sorted(members)],
        )
        for name, members in sorted(grid.items(), key=lambda found: _place(comparison, found[1][0]))
    ]
    path = comparison.results / f"{comparison.name}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(groups, comparison.name, MOST_BYTES), encoding="utf-8")
    return path


def _place(comparison: Comparison, cell: tuple[str, str, int]) -> tuple[int, int]:
    """Where a setting and an algorithm stand in the comparison."""
    return [*comparison.settings].index(cell[0]), [*comparison.algorithms].index(cell[1])
