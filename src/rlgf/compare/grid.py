"""Grids of algorithms and seeds over recipes: run the missing ones, then tabulate."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator

from rlgf.compare.curves import draw_curves
from rlgf.compare.finished import FinishedRuns
from rlgf.compare.page import write_page
from rlgf.compare.tables import write_tables
from rlgf.config import Config, load_config
from rlgf.errors import UserError, nearest
from rlgf.evaluation.files import WATCHED
from rlgf.jsontext import to_json
from rlgf.packaged import find_recipe
from rlgf.recipe import laid_over, read_source, validated
from rlgf.run.checkpoint import latest_checkpoint
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from rlgf.types import Author


class Comparison(BaseModel):
    """What a comparison runs: every algorithm with every seed in every setting."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    prepare: tuple[tuple[str, ...], ...] = ()
    """Runs that come first, in this order: start models and guides, shared by all that follows."""
    settings: dict[str, tuple[str, ...]]
    """Recipes and overrides of each setting."""
    algorithms: dict[str, tuple[str, ...]]
    """Recipes and overrides of each algorithm, over those of the setting."""
    seeds: PositiveInt = 5
    seeds_in: dict[str, PositiveInt] = {}
    """Other numbers of seeds in some settings."""
    quick: bool = False
    """Two seeds, under a name of its own: a first look at what the whole would show."""
    quick_over: tuple[str, ...] = ()
    """Overrides of every run of such a look, where two seeds alone would take long."""
    baseline: str
    """The algorithm that paired differences are taken against."""
    metrics: tuple[str, ...] = WATCHED
    notes: Path | None = None
    """A Markdown file beside the recipe that the report begins with: the findings, and their reasons."""
    runs: Path = Path("runs/compare")
    results: Path = Path("results")

    @model_validator(mode="after")
    def _names_fit(self) -> Comparison:
        if self.baseline not in self.algorithms:
            raise ValueError(
                f"baseline '{self.baseline}' is not run: {nearest(self.baseline, self.algorithms)}"
            )
        for setting in self.seeds_in:
            if setting not in self.settings:
                raise ValueError(f"seeds_in names '{setting}': {nearest(setting, self.settings)}")
        return self

    def seeds_of(self, setting: str) -> int:
        return self.seeds_in.get(setting, self.seeds)

    def folder(self, setting: str, algorithm: str, seed: int) -> Path:
        return self.runs / self.name / setting / algorithm / f"seed-{seed}"

    def config(self, setting: str, algorithm: str, seed: int) -> Config:
        """The configuration of one run of the grid."""
        return load_config(
            *self.settings[setting],
            *self.algorithms[algorithm],
            {
                "seed": seed,
                "name": f"{self.name}-{setting}-{algorithm}-{seed}",
                "output": str(self.folder(setting, algorithm, seed)),
            },
        )

    def grid(self) -> Iterator[tuple[str, str, int]]:
        """Seeds outermost, so that a grid cut short has whole comparisons."""
        for seed in range(max(map(self.seeds_of, self.settings))):
            for setting in self.settings:
                if seed < self.seeds_of(setting):
                    for algorithm in self.algorithms:
                        yield setting, algorithm, seed


def load_comparison(source: str | Path, overrides: Sequence[str] = ()) -> Comparison:
    """Read a comparison's recipe, given by its path or by the name of a packaged one.

    Raises:
        UserError: it is not there or says something that does not fit.
    """
    path = find_recipe(source, "compare", "comparison")
    merged = read_source(path)
    for override in overrides:
        merged = laid_over(merged, read_source(override))
    comparison = validated(Comparison, merged)
    if comparison.quick:
        settings = {name: (*said, *comparison.quick_over) for name, said in comparison.settings.items()}
        changes = {
            "name": f"{comparison.name}-quick",
            "settings": settings,
            "seeds": 2,
            "seeds_in": {},
            "notes": None,
        }
        comparison = comparison.model_copy(update=changes)
    if comparison.notes is None:
        return comparison
    notes = path.parent / comparison.notes
    if not notes.is_file():
        raise UserError(
            f"'notes': there is no file {notes}; a comparison's notes are named from its own folder."
        )
    return comparison.model_copy(update={"notes": notes})


def run_comparison(
    comparison: Comparison, *, report_only: bool = False, display: Display | None = None
) -> None:
    """Train what has not been trained yet, evaluate start and guide, and write tables, curves and the page of all runs.

    Every configuration is checked before the first run starts. A finished run keeps its policy, metrics and
    texts; its checkpoints are deleted.

    Raises:
        UserError: a run's recipe does not fit, or nothing has finished to report on.
    """
    display, finished = display or Display(), FinishedRuns(comparison)
    if not report_only:
        _run_missing(finished, display)
    runs, authors = finished.read(), finished.authors()
    if not runs:
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


def _run_missing(finished: FinishedRuns, display: Display) -> None:
    """What has not finished anywhere, after what it starts from."""
    runs, authors, comparison = finished.read(), finished.authors(), finished.comparison
    if len(runs) < len(finished.configs) or not all(authors.values()):
        for sources in comparison.prepare:
            train_once(load_config(*sources), display)
    for number, (cell, config) in enumerate(finished.configs.items(), start=1):
        display.note(f"[{number}/{len(finished.configs)}] {' '.join(map(str, cell))}")
        if cell in runs:
            display.note("is finished.")
            continue
        train_once(config, display)
        # Nothing goes on with a finished run, and the optimizers of a whole grid would fill the disk.
        shutil.rmtree(config.folder / "checkpoints", ignore_errors=True)
        finished.keep()
    for setting in comparison.settings:
        if not authors[setting]:
            _measure_authors(comparison, setting, finished.authors_file(setting), display)


def train_once(config: Config, display: Display) -> None:
    """Train unless the run has finished; go on from its newest checkpoint where there is one."""
    if (config.folder / "summary.json").exists():
        display.note(f"{config.folder} is finished.")
        return
    resume = latest_checkpoint(config.folder / "checkpoints") is not None
    with closing(Trainer(config, display=display)) as trainer:
        trainer.train(resume=resume)


def _measure_authors(comparison: Comparison, setting: str, path: Path, display: Display) -> None:
    """The start policy, each guide and the data's own texts, if any, on the test split, once a setting."""
    path.parent.mkdir(parents=True, exist_ok=True)
    configs = [comparison.config(setting, name, 0) for name in comparison.algorithms]
    guided = {config.guide.label: config for config in configs if config.guide is not None}
    measured: dict[str, dict[str, float]] = {}
    with closing(Trainer(configs[0], display=display)) as trainer:
        measured["start"] = trainer.evaluate(Author.POLICY).totals
        referenced = trainer.parts.has_references("test")
        reference = trainer.evaluate(Author.REFERENCE).totals if referenced else None
    for guide, config in guided.items():
        name = "guide" if len(guided) == 1 else f"guide {guide}"
        with closing(Trainer(config, display=display)) as trainer:
            measured[name] = trainer.evaluate(Author.GUIDE).totals
    if reference is not None:
        measured["reference text"] = reference
    path.write_text(to_json(measured, indent=1))
