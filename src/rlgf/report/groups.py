"""Which runs differ in nothing but their seed, and are one curve with an interval."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rlgf.config import Config
from rlgf.identity import is_free
from rlgf.report.runs import Run

_LENGTH = ("updates", "policy_tokens", "guide_tokens")
"""Fields of `training` that a resumed run may change, and that schedules follow."""


@dataclass(frozen=True)
class Group:
    """Runs of one configuration, one for each seed."""

    name: str
    runs: Sequence[Run]
    labels: Sequence[str]
    """One for each run, unlike all other runs' of the page."""


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Runs by what they have in common besides the seed, in the order in which they were given."""
    found: dict[tuple[str, int], list[Run]] = {}
    seen = Counter[tuple[str, int]]()
    for run in runs:
        key = _key(run)
        # Two runs with one seed are not one more seed.
        found.setdefault((key, seen[key, run.seed]), []).append(run)
        seen[key, run.seed] += 1
    names = _unlike([_name(members, runs) for members in found.values()])
    groups, taken = [], list[str]()
    for name, members in zip(names, found.values(), strict=True):
        labels = [name] if len(members) == 1 else [f"{name}, seed {run.seed}" for run in members]
        labels = _unlike([*taken, *labels])[len(taken) :]
        taken += labels
        groups.append(Group(name, members, labels))
    return groups


def _key(run: Run) -> str:
    """What runs of one configuration have in common; a run without one has its folder for itself."""
    if not run.config:
        return str(run.folder)
    training = run.config.get("training") or {}
    shared = _without_free(run.config, Config) | {"length": [training.get(name) for name in _LENGTH]}
    shared.pop("seed", None)
    return json.dumps(shared, sort_keys=True, default=str)


def _without_free(section: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """The entries of a section that change results; the run may be of another version, whose fields differ."""
    kept = {}
    for name, value in section.items():
        if name in model.model_fields and is_free(model, name):
            continue
        kind: Any = model.model_fields[name].annotation if name in model.model_fields else None
        nested = isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(value, Mapping)
        kept[name] = _without_free(value, kind) if nested else value
    return kept


def _name(members: Sequence[Run], runs: Sequence[Run]) -> str:
    """The folders below all runs' common one; of a single run its own name."""
    if len(runs) == 1:
        return runs[0].name
    above = Path(os.path.commonpath([run.folder.absolute() for run in runs]))
    parts = members[0].folder.absolute().relative_to(above).parts
    kept = [part for part in parts if not re.fullmatch(r"seed[-_]?\d+", part)]
    return "/".join(kept) or re.sub(r"[-_]?(seed[-_]?)?\d+$", "", members[0].name) or members[0].name


def _unlike(names: Sequence[str]) -> list[str]:
    """The names, with a number at each that has been there before."""
    found: list[str] = []
    for name in names:
        again, number = name, 2
        while again in found:
            again, number = f"{name} ({number})", number + 1
        found.append(again)
    return found
