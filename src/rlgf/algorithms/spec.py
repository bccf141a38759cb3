"""Algorithms: rows of the catalog whose fields fit together, mixtures of two, and what a row needs of the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import model_validator

from rlgf import seeding
from rlgf.algorithms.row import Row
from rlgf.algorithms.rules import misfit
from rlgf.algorithms.script import Help, Span
from rlgf.identity import FREE
from rlgf.schedules import Share
from rlgf.strict import Strict
from rlgf.types import Author, Sample


class Algorithm(Row):
    """One row of the catalog: all that tells one algorithm from another.

    Raises:
        ValueError: its fields do not fit together, see `rlgf.algorithms.rules`.
    """

    @model_validator(mode="after")
    def _coherent(self) -> Algorithm:
        found = misfit(self)
        if found is not None:
            raise ValueError(found)
        return self

    @property
    def unguided(self) -> Algorithm | None:
        """The same without a guide: its roll-ins and distillation are left out.

        None where nothing would be left: a guide finishes the texts, or is all there is to learn from, or a reward
        that learns does so from its texts.
        """
        if self.reads_guide_scores:
            return None
        terms = {name: term for name, term in self.terms.items() if "guide_distribution" not in term.reads}
        row = self.but(terms=terms)
        row = row.alone if self.script.helper is Author.GUIDE or self.script.guide_hinted else row
        learns = any(not term.of_critic for term in row.terms.values())
        return row if learns and Author.GUIDE not in (self.script.rollout, self.examples) else None

    def but(self, **fields: Any) -> Algorithm:
        """The same with other fields, each as a whole; nothing is checked."""
        return self.model_copy(update=fields)

    def changed(self, **fields: Any) -> Algorithm:
        """The same with other fields, level by level, as a recipe changes them: ``help={"probability": 0.3}``.

        Raises:
            ValueError: they do not fit.
        """
        return Algorithm.model_validate(merged(self.model_dump(), fields))

    @property
    def alone(self) -> Algorithm:
        """The same without roll-ins and hints."""
        terms = {name: term for name, term in self.terms.items() if term.on is not Span.ROLLIN}
        script = self.script.model_copy(update={"rollin": None, "hint": None})
        help = self.help
        return self.but(script=script, help=Help(shared=help.shared, success=help.success), terms=terms)

    @property
    def rows(self) -> tuple[Algorithm, ...]:
        return (self,)

    def at(self, update: int, progress: float, seed: int) -> Algorithm:
        return self


class Mixture(Strict):
    """Two rows of which each update runs one: ``explore`` with a probability, else ``imitate``."""

    name: str
    summary: Annotated[str, FREE] = ""
    imitate: Algorithm
    explore: Algorithm
    explore_prob: Share
    equation: Annotated[str, FREE] = ""
    paper: Annotated[str, FREE] = ""

    @model_validator(mode="after")
    def _told_apart(self) -> Mixture:
        # By its name the log says which row ran, and a run keeps the coefficient of its KL penalty.
        if self.imitate.name == self.explore.name:
            raise ValueError(
                f"both rows of the mixture are called '{self.explore.name}': give one of them another 'name'"
            )
        return self

    @property
    def unguided(self) -> Algorithm | None:
        """What an update runs without a guide."""
        return self.explore.unguided

    @property
    def rows(self) -> tuple[Algorithm, ...]:
        return (self.imitate, self.explore)

    def at(self, update: int, progress: float, seed: int) -> Algorithm:
        """The row that the given update runs: a function of its arguments alone.

        Args:
            progress: the share of the run that is over.
        """
        draw = seeding.uniforms(1, seed, "mixture", update).item()
        return self.explore if draw < self.explore_prob.at(progress) else self.imitate


AnyAlgorithm = Algorithm | Mixture


def merged(old: Mapping[str, Any], new: Any) -> Any:
    """``new`` over ``old``, level by level; a schedule that says where it starts is a whole one."""
    if not isinstance(new, Mapping):
        return new
    found = dict(old)
    for key, value in new.items():
        inner = found.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping) and "start" not in value:
            value = merged(inner, value)
        found[key] = value
    return found


def lacking(row: Algorithm, sample: Sample) -> str | None:
    """What a sample lacks of what a row reads, as a sentence; None where it has all."""
    if row.from_pairs and sample.rejected is None:
        return (
            f"algorithm '{row.name}' learns from pairs, and the task's samples have no rejected text: "
            "use the task 'data' with the options 'reference_field: chosen' and 'rejected_field: rejected'."
        )
    hint = row.script.hint
    read = any(term.on is Span.REFERENCES and term.ever for term in row.terms.values())
    shown = hint is not None and hint.reads_reference
    if (read or shown or Author.REFERENCE in row.script.authors) and not sample.references:
        return (
            f"algorithm '{row.name}' needs reference texts, and a sample has none: let the task give them (its "
            "option 'reference_field'), or choose another algorithm."
        )
    for column in () if hint is None else hint.named_columns:
        if column in sample.columns:
            continue
        there = ", ".join(sample.columns) or "none"
        return (
            f"algorithm '{row.name}' takes hints from the column '{column}', and a sample has none (its columns: "
            f"{there}): set 'script.hint.{'columns' if hint and hint.columns else 'column'}' to what the task gives."
        )
    return None
