"""Reading what runs have written so far. Nothing that a folder names is executed or loaded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from rlgf.errors import UserError
from rlgf.training import TrainingConfig

METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"


@dataclass(frozen=True)
class Run:
    """What one run has written."""

    folder: Path
    config: Mapping[str, Any]
    """As the run's ``config.yaml`` says it; empty where there is none."""
    metrics: Sequence[Mapping[str, Any]]
    samples: Sequence[Mapping[str, Any]]
    totals: Mapping[str, float] | None = None
    """Of the test at the end; None for a run that has not finished."""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return str(self.config.get("name", self.folder.name))

    @property
    def seed(self) -> int:
        return int(self.config.get("seed", 0))

    @property
    def updates(self) -> int:
        """How many are done."""
        return max((int(row["update"]) for row in self.metrics), default=0)

    @property
    def planned(self) -> int:
        """How many there are to be; where tokens end the run, as far as its pace tells."""
        if "training" not in self.config:
            return self.updates
        # The run may be of another version, whose fields differ.
        training = TrainingConfig.model_construct(**self.config["training"])
        counts = [self.series(name)[-1:] for name in ("policy_tokens", "guide_tokens")]
        policy, guide = (int(count[0][1]) if count else 0 for count in counts)
        return training.expected_updates(self.updates, policy, guide)

    def series(self, name: str) -> list[tuple[int, float]]:
        """(update, value) of one metric, in the order of the updates."""
        found = {row["update"]: float(row[name]) for row in self.metrics if is_number(row.get(name))}
        return sorted(found.items())


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The folders of runs at or below some paths, each once.

    Raises:
        UserError: a path is not there, or no run is at or below it.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise UserError(
                f"there is no {path}: give the output folder of a run, or a folder of such folders."
            )
        below = [path] if (path / METRICS).is_file() else sorted(file.parent for file in path.rglob(METRICS))
        if not below:
            raise UserError(
                f"{path} holds no run: a run's folder has a file {METRICS}, which is there after its first update."
            )
        found |= dict.fromkeys(below)
    return list(found)


def read_run(folder: Path) -> Run:
    """A run from its folder, finished or not.

    Raises:
        UserError: a file of it is not what a run writes.
    """
    config = _yaml(folder / "config.yaml")
    summary = _json(folder / "summary.json") or {}
    measured = (summary.get("totals") or {}).get("policy")
    totals = None if measured is None else {name: one for name, one in measured.items() if is_number(one)}
    seconds = (summary.get("progress") or {}).get("seconds")
    metrics = [row for row in json_lines(folder / METRICS) if isinstance(row.get("update"), int)]
    kept = (line for line in json_lines(folder / SAMPLES) if {"update", "tokens", "authors"} <= line.keys())
    samples = [*kept, *_tested(folder, metrics)]
    timed = sum(row["seconds"] for row in metrics if is_number(row.get("seconds")))
    return Run(
        folder,
        config,
        metrics,
        _latest(samples),
        totals,
        float(seconds if is_number(seconds) else timed),
    )


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines that are whole, for a run that goes on may be in the middle of its last one; infinities are None.

    Raises:
        UserError: another line is not JSON.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                found = json.loads(line, parse_constant=lambda sign: None)
            except ValueError as error:
                raise UserError(
                    f"{path}, line {number}, is not JSON ({error}): mend or move the file."
                ) from error
            if isinstance(found, dict):
                yield found


def _tested(folder: Path, metrics: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The texts of the test at the end, as records of samples."""
    update = max((row["update"] for row in metrics), default=0)
    for number, record in enumerate(json_lines(folder / "evaluation" / "policy.jsonl")):
        if "completion" not in record:
            continue  # the totals
        given = ("prompt", "messages", "completion", "references", "columns", "reward")
        yield {
            "update": update,
            "split": "test",
            "episode": number - 1,
            "prompt": record.get("prompt", ""),
            "reference": next(iter(record.get("references") or [""])),
            "tokens": [record["completion"]],
            "authors": [["policy", 1]],
            "reward": record.get("reward"),
            "metrics": {k: v for k, v in record.items() if k not in given and is_number(v)},
        }


def _latest(samples: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each sample once: an evaluation that was interrupted is written again."""
    kept = {(s.get("split"), s.get("update"), s.get("episode")): s for s in samples}
    return list(kept.values())


def _json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): mend or move the file.") from error


def _yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not YAML ({reason}): mend or move the file.") from error
    return found if isinstance(found, dict) else {}
