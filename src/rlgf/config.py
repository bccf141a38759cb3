"""The typed configuration of a run, and how recipes and overrides become one."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pydantic import model_validator

from rlgf import checks
from rlgf.algorithms.pick import carried
from rlgf.errors import IncoherentError, UserError
from rlgf.guides.config import fit_for as fit_guide
from rlgf.packaged import recipe_names
from rlgf.recipe import Source, laid_over, read_source, validated
from rlgf.registry import forget_edited
from rlgf.rewards.build import fit_for as fit_reward
from rlgf.sections import Sections

_Fit = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]


class Config(Sections):
    """Everything that defines a run.

    Raises:
        ValueError: its sections do not fit together, see `rlgf.checks`.
    """

    @model_validator(mode="after")
    def _coherent(self, info: Any) -> Config:  # a ValidationInfo, a protocol that no run-time check can read
        broken = list(checks.broken(self, (info.context or {}).get("given", ())))
        if broken:
            raise IncoherentError(broken)
        return self

    def to_yaml(self) -> str:
        return OmegaConf.to_yaml(OmegaConf.create(self.model_dump(mode="json")))


def load_config(*sources: Source, given: Collection[str] = ()) -> Config:
    """A configuration from recipes and overrides, later ones over earlier ones.

    Args:
        sources: paths of YAML recipes, names of packaged ones such as ``imdb``, overrides such as
            ``update.epochs=2``, or mappings.
        given: sections that may be missing, since Python gives `Trainer` an object in place of each: 'task', 'policy',
            'guide', 'reward' or 'environment'.

    Raises:
        UserError: a recipe that is not there or is no YAML; an unknown key, with the nearest known
            one; a value that does not fit, with the field and what would be right.
    """
    forget_edited()
    merged: dict[str, Any] = {}
    for source in sources:
        part = _spelled_out(_of_a_run(read_source(source), source))
        if _whole_algorithm(part.get("algorithm")):
            old = merged.pop("algorithm", {})
            base = part["algorithm"].get("base")
            # Whatever else stood there is overruled.
            if base is not None and isinstance(old, dict):
                part["algorithm"] = laid_over(carried(old, str(base)), part["algorithm"])
        merged = laid_over(_fit(merged, part, _FITS), part)
    return validated(Config, merged, given)


def _of_a_run(part: dict[str, Any], source: Source) -> dict[str, Any]:
    """A recipe, unless it is one of another command.

    Raises:
        UserError: it is a comparison, or of a reward model.
    """
    for keys, kind, command in (
        ({"settings", "algorithms"}, "a comparison", "compare"),
        ({"kind", "data"}, "the recipe of a reward model", "reward"),
    ):
        if keys <= part.keys() and isinstance(source, str | Path):
            name = re.sub("^(compare|rewards)/", "", str(source)) if str(source) in recipe_names() else source
            raise UserError(f"{source} is {kind}: run it with `rlgf {command} {name}`.")
    return part


def _whole_algorithm(algorithm: Any) -> bool:
    """Whether a recipe gives an algorithm of its own rather than changes to an earlier one."""
    return isinstance(algorithm, dict) and (
        "base" in algorithm or ("name" in algorithm and len(algorithm) > 1)
    )


def _fit(old: dict[str, Any], new: dict[str, Any], fits: Mapping[str, _Fit]) -> dict[str, Any]:
    """What stays of earlier recipes when a later one is laid over them."""
    both = {key for key in fits if isinstance(old.get(key), dict) and isinstance(new.get(key), dict)}
    return {key: fits[key](value, new[key]) if key in both else value for key, value in old.items()}


def _fit_policy(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """What stays of a policy when a later recipe is laid over it: a model replaces one from scratch, and that a model."""
    named = {key for key in ("model", "scratch") if new.get(key) is not None}
    gone = {"model": {"scratch"}, "scratch": {"model", "revision"}}[named.pop()] if len(named) == 1 else set()
    return {key: value for key, value in old.items() if key not in gone}


def _fit_evaluation(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The same of an evaluation, whose judge is named as a reward is."""
    return _fit(old, new, {"judge": fit_reward})


_FITS: Mapping[str, _Fit] = {
    "policy": _fit_policy,
    "guide": fit_guide,
    "reward": fit_reward,
    "evaluation": _fit_evaluation,
}
"""The sections of which a later recipe does not keep all that it leaves out, each with what stays."""


def _spelled_out(part: dict[str, Any]) -> dict[str, Any]:
    """A recipe with its short forms written out, so that later sources can change single fields."""
    for key, field in (("algorithm", "base"), ("task", "name"), ("reward", "name"), ("environment", "name")):
        if isinstance(part.get(key), str):
            part[key] = {field: part[key]}
    evaluation = part.get("evaluation")
    if isinstance(evaluation, dict) and isinstance(evaluation.get("judge"), str):
        part["evaluation"] = {**evaluation, "judge": {"name": evaluation["judge"]}}
    if part.get("guide") in ("oracle", "self"):
        part["guide"] = {part["guide"]: True}
    return part
