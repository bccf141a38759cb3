"""What finished runs of a comparison measured: read from their folders, and kept in one small file beside the tables.

With that file a grid goes on where the folders of its runs are not, such as on another machine.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlgf.compare.comparison import Comparison
from rlgf.config import Config, load_config
from rlgf.errors import UserError
from rlgf.identity import identity
from rlgf.jsontext import to_json
from rlgf.run.logs import read_metrics
from rlgf.run.whole_folder import write_whole

Cell = tuple[str, str, int]
"""A setting, an algorithm and a seed."""
Authors = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Of each setting what the start, the guides and the data's own texts measure."""

_WORDS = {"name", "output", "summary", "equation", "paper"}
"""Fields that a run's numbers do not depend on."""
_MEASURED = ("evaluation", "updates", "policy_tokens", "guide_tokens", "budget")
"""Fields that a resumed run may change, and that its numbers depend on."""


@dataclass(frozen=True)
class Finished:
    """What a finished run measured."""

    totals: Mapping[str, float]
    seconds: float
    curve: Sequence[tuple[float, float]]
    """(policy tokens so far, validation reward) at each evaluation."""
    frontier: Sequence[tuple[float, float]]
    """(validation KL in nats per token, validation reward) at each evaluation."""
    tokens: Mapping[str, float]
    """What the policy and the guide wrote in training."""


class FinishedRuns:
    """The finished runs of a comparison, wherever they ran."""

    def __init__(self, comparison: Comparison) -> None:
        """
        Raises:
            UserError: a run's recipe does not fit, its folder has a run of another configuration, or the file of
                kept runs cannot be read.
        """
        self.comparison = comparison
        self.path = comparison.results / f"{comparison.name}.runs.json"
        self.configs = {cell: comparison.config(*cell) for cell in comparison.grid()}
        self._digests = {cell: digest(config) for cell, config in self.configs.items()}
        for config in self.configs.values():
            has_finished(config)
        self._kept = _read(self.path)

    def read(self) -> dict[Cell, Finished]:
        """Every run that has finished here, or that is kept and was configured as it would be now."""
        runs = {}
        for cell, config in self.configs.items():
            summary, record = config.folder / "summary.json", self._kept["runs"].get(_name(cell))
            if summary.exists():
                runs[cell] = _measured(summary)
            elif record is not None and record["configuration"] == self._digests[cell]:
                runs[cell] = _revived(record)
        return runs

    def authors(self) -> Authors:
        """The measures of start, guides and references, taken here or where the kept runs were.

        Of a setting whose configurations were others then there is nothing.
        """
        found: dict[str, Mapping[str, Mapping[str, float]]] = {}
        for setting in self.comparison.settings:
            path, kept = self.authors_file(setting), self._kept["authors"].get(setting, {})
            here = json.loads(path.read_text()) if path.exists() else {}
            found[setting] = self._fitting(setting, here) or self._fitting(setting, kept)
        return found

    def authors_record(self, setting: str, measured: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        """The measures of start, guides and references, with a digest of the configurations it comes from."""
        return {"configuration": self._authors_digest(setting), "measured": measured}

    def author_configs(self, setting: str) -> dict[str, Config]:
        """The configurations that start and guides are measured with: each guide with the first algorithm that asks it."""
        configs = [self.configs[setting, name, 0] for name in self.comparison.algorithms]
        guided: dict[str, Config] = {}
        for config in configs:
            if config.guide is not None:
                guided.setdefault(config.guide.label, config)
        named = {"guide" if len(guided) == 1 else f"guide {guide}": guided[guide] for guide in guided}
        return {"start": configs[0], **named}

    def _authors_digest(self, setting: str) -> str:
        return _short_hash({name: digest(config) for name, config in self.author_configs(setting).items()})

    def _fitting(self, setting: str, record: Mapping[str, Any]) -> Mapping[str, Mapping[str, float]]:
        """What a record says, unless it is of other configurations."""
        fits = record.get("configuration") == self._authors_digest(setting)
        return dict(record["measured"]) if fits else {}

    def authors_file(self, setting: str) -> Path:
        return self.comparison.runs / self.comparison.name / setting / "authors.json"

    def keep(self) -> Path:
        """Write what has finished beside the tables, each run with a digest of its configuration.

        What the file has of other cells and configurations stays, until a run of that cell takes its place.
        """
        kept = _read(self.path)
        runs = kept["runs"] | {
            _name(cell): {"configuration": self._digests[cell], **asdict(run)}
            for cell, run in self.read().items()
        }
        authors = kept["authors"] | {
            name: self.authors_record(name, found) for name, found in self.authors().items() if found
        }
        body = ",\n".join(f"{to_json(name)}: {to_json(run)}" for name, run in runs.items())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, f'{{"authors": {to_json(authors)},\n"runs": {{\n{body}\n}}}}\n')
        return self.path


def read_evaluations(folder: Path) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """`Finished.curve` and `Finished.frontier` of a run, from its metrics."""
    tokens, curve, frontier = 0.0, [], []
    for line in read_metrics(folder):
        tokens = float(line.get("policy_tokens", tokens))
        if "validation/reward" in line:
            reward = _number(line["validation/reward"])
            curve.append((tokens, reward))
            frontier.append((_number(line.get("validation/kl")), reward))
    return curve, frontier


def has_finished(config: Config) -> bool:
    """Whether the run of a configuration has finished in its folder.

    Raises:
        UserError: the run there was configured otherwise, in what its numbers depend on.
    """
    if not (config.folder / "summary.json").exists():
        return False
    said = config.folder / "config.yaml"
    try:
        same = digest(load_config(said)) == digest(config)
    except UserError as error:
        raise UserError(
            f"{config.folder} has a finished run whose configuration cannot be read ({str(error).rstrip('.')}): "
            "move or remove that folder to run it again."
        ) from error
    if not same:
        raise UserError(
            f"{config.folder} has a finished run of another configuration than its recipe says now: move or remove "
            f"that folder to run it again, or make the recipe say what {said.name} in it says."
        )
    return True


def digest(config: Config) -> str:
    """Of all that a configuration says about a run's numbers and that is not a default."""
    return _short_hash(_numbers(identity(config, _MEASURED, exclude_defaults=True)))


def _short_hash(value: Any) -> str:
    return hashlib.sha256(to_json(value, sort_keys=True).encode()).hexdigest()[:16]


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(entry) for key, entry in value.items() if key not in _WORDS}
    return [_numbers(entry) for entry in value] if isinstance(value, list) else value


def _name(cell: Cell) -> str:
    return "/".join(map(str, cell))


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {"runs": {}, "authors": {}}
    try:
        kept: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(
            f"{path} is not the file of finished runs that `rlgf compare` writes ({error}): restore it, or delete it "
            "to run them again."
        ) from None
    return kept


def _measured(summary: Path) -> Finished:
    found = json.loads(summary.read_text())
    progress = found["progress"]
    curve, frontier = read_evaluations(summary.parent)
    tokens = {author: float(progress[f"{author}_tokens"]) for author in ("policy", "guide")}
    return Finished(_totals(found["totals"]["policy"]), progress["seconds"], curve, frontier, tokens)


def _revived(record: Mapping[str, Any]) -> Finished:
    points = {name: [(_number(x), _number(y)) for x, y in record[name]] for name in ("curve", "frontier")}
    totals = _totals(record["totals"])
    return Finished(totals, record["seconds"], points["curve"], points["frontier"], record["tokens"])


def _totals(said: Mapping[str, float | None]) -> dict[str, float]:
    return {name: _number(value) for name, value in said.items()}


def _number(value: Any) -> float:
    """NaN is written as null, since JSON has no word for it."""
    return math.nan if value is None else float(value)
