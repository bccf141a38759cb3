"""Which runs differ in nothing but their seed, and are one curve with an interval."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlgf.report.runs import Run

_OWN = ("name", "seed", "output", "training", "evaluation")


@dataclass(frozen=True)
class Group:
    """Runs of one configuration, one for each seed."""

    name: str
    runs: Sequence[Run]
    labels: Sequence[str]
    """One for each run, unlike all other runs' of the page."""


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Runs by what they have in common besides the seed, in the order in which they were given."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(_key(run), []).append(run)
    names = _unlike([_name(members, runs) for members in found.values()])
    groups, taken = [], list[str]()
    for name, members in zip(names, found.values(), strict=True):
        labels = [name] if len(members) == 1 else [f"{name}, seed {run.seed}" for run in members]
        labels = _unlike([*taken, *labels])[len(taken) :]
        taken += labels
        groups.append(Group(name, members, labels))
    return groups


def _key(run: Run) -> str:
    """Two runs with one seed are not one more seed: they stay apart by their folder."""
    if not run.config:
        return str(run.folder)
    shared: dict[str, Any] = {key: value for key, value in run.config.items() if key not in _OWN}
    return json.dumps(shared, sort_keys=True, default=str)


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
