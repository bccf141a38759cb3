"""A comparison as its recipe says it: every algorithm with every seed in every setting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import PositiveInt, model_validator

from rlgf.config import Config, load_config
from rlgf.errors import UserError, nearest
from rlgf.evaluation.files import WATCHED
from rlgf.packaged import find_recipe
from rlgf.recipe import laid_over, read_source, validated
from rlgf.strict import Strict


class Comparison(Strict):
    """What a comparison runs: every algorithm with every seed in every setting."""

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
    if "algorithms" not in merged and {"task", "policy"} & merged.keys():
        raise UserError(
            f"{source} is the recipe of a run, and no comparison: run it with `rlgf train {source}`."
        )
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
