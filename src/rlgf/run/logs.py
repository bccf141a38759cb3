"""What a run writes as it goes on: metrics and a few episodes as JSON lines, and what each tracker is given."""

from __future__ import annotations

import importlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from accelerate.utils import patch_environment

from rlgf import distributed
from rlgf.algorithms import Algorithm
from rlgf.config import Config
from rlgf.errors import UserError, one_line
from rlgf.evaluation.files import Evaluation
from rlgf.jsontext import to_json
from rlgf.models.language_model import LanguageModel
from rlgf.run.episodes import episode_records, evaluated_record, picked
from rlgf.run.whole_folder import full_disk_named, write_whole
from rlgf.types import Experience


class MetricsLog:
    """Appends to ``metrics.jsonl`` and to the trackers of `accelerate`."""

    def __init__(self, config: Config, trackers: Sequence[GeneralTracker]) -> None:
        """``trackers`` are further ones than the configuration names."""
        self.path = config.folder / "metrics.jsonl"
        # It is here for its trackers, and would divide the processes a second time.
        with patch_environment(accelerate_use_parallelism_config="false"):
            self.accelerator = Accelerator(
                cpu=not torch.cuda.is_available(),
                log_with=[*(_service(name, config.name) for name in config.training.trackers), *trackers]
                or None,
                project_dir=str(config.folder),
            )
        self.accelerator.init_trackers(config.name)
        for tracker in self._trackers:
            describe_run(tracker, config.model_dump(mode="json"), config.to_yaml())

    @property
    def _trackers(self) -> Sequence[GeneralTracker]:
        """Those of the main process, which alone are given anything."""
        return self.accelerator.trackers if self.accelerator.is_main_process else ()

    def write(self, update: int, metrics: dict[str, float | str]) -> None:
        if not self.accelerator.is_main_process:
            return
        with full_disk_named(self.path.parent, "a line of metrics"), self.path.open("a") as file:
            file.write(to_json({"update": update, **metrics}) + "\n")
        numbers = {k: v for k, v in metrics.items() if isinstance(v, float | int)}
        self._tell(lambda tracker: tracker.log(numbers, step=update))

    def write_texts(self, update: int, split: str, evaluation: Evaluation, kept: int) -> None:
        """Give the trackers the first ``kept`` texts of an evaluation as a table."""
        rows = [
            (update, record["prompt"], record["completion"], record.get("reward"))
            for record in evaluation.records[:kept]
        ]
        if rows:
            self._tell(lambda tracker: write_table(tracker, f"texts_{split}", COLUMNS, rows, update))

    def write_summary(self, update: int, totals: Mapping[str, float], guide: Mapping[str, float]) -> None:
        """Give the trackers the test at the end, and what a remote guide was asked and cost in all."""
        named = {f"test/{name}": value for name, value in totals.items()}
        named |= {f"guide_total/{name}": value for name, value in guide.items()}
        self._tell(lambda tracker: tracker.log(named, step=update))

    def close(self) -> None:
        # `end_training` would also part the processes, which have yet to test the policy.
        self._tell(lambda tracker: tracker.finish())

    def _tell(self, give: Callable[[GeneralTracker], None]) -> None:
        """Give each tracker something, until it fails: what the run learns is worth more than a service."""
        for tracker in list(self._trackers):
            try:
                give(tracker)
            except Exception as error:
                self.accelerator.trackers.remove(tracker)
                warnings.warn(
                    f"the tracker '{tracker.name}' failed ({one_line(error, 200)}): the run goes on without it.",
                    stacklevel=2,
                )


_PROJECTS = {
    "wandb": ("WANDB_PROJECT", "name"),
    "trackio": ("TRACKIO_PROJECT", "name"),
    "mlflow": ("MLFLOW_EXPERIMENT_NAME", "run_name"),
}
"""The variable that names a service's project, and what its tracker calls the name of a run."""


def _service(tracker: str, run: str) -> str | GeneralTracker:
    """The tracker of a service, with this run in a project that it shares with others: by itself `accelerate` makes a
    project of each run, where none can be compared, and a name is invented for the run in it."""
    if tracker not in _PROJECTS:
        return tracker
    variable, named = _PROJECTS[tracker]
    made: GeneralTracker = LOGGER_TYPE_TO_CLASS[tracker](os.environ.get(variable, "rlgf"), **{named: run})
    return made


def rewind_lines(path: Path, update: int) -> None:
    """Keep the whole lines of a file of JSON lines that are of updates up to this one.

    Raises:
        UserError: a line is not one of ours.
    """
    if not path.exists():
        return
    try:
        text = path.read_text(encoding="utf-8")
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        kept = [line for line in lines if json.loads(line)["update"] <= update]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} has a line that rlgf did not write ({error}): mend or move the file."
        ) from error
    write_whole(path, "".join(kept))


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines that a run has written so far."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class SamplesLog:
    """Appends to ``samples.jsonl``; reads what an update learned from and changes none of it. Format: docs/report.md."""

    def __init__(self, folder: Path, kept: int, policy: LanguageModel) -> None:
        """``kept`` is how many episodes of each update, and texts of each evaluation, are written; 0 writes nothing."""
        self.path = folder / "samples.jsonl"
        self.kept = kept if distributed.is_main() else 0
        self.policy = policy

    def write(self, update: int, experience: Experience, row: Algorithm) -> None:
        """Some episodes of an update that is finished, and that ran ``row``."""
        if not self.kept:
            return
        head = {"update": update, "split": "train", "algorithm": row.name}
        rows = picked(experience.rollout, row, self.kept)
        self._append(head | record for record in episode_records(experience, row, rows, self.policy))

    def write_evaluation(self, update: int, split: str, evaluation: Evaluation) -> None:
        """The first texts of an evaluation, which answer the same prompts each time."""
        head = {"update": update, "split": split}
        records = evaluation.records[: self.kept]
        self._append(head | evaluated_record(number, record) for number, record in enumerate(records))

    def _append(self, records: Iterable[Mapping[str, Any]]) -> None:
        text = "".join(to_json(record) + "\n" for record in records)
        if text:
            with full_disk_named(self.path.parent, "samples"), self.path.open("a") as file:
                file.write(text)


COLUMNS = ("update", "prompt", "completion", "reward")
"""Of the table of a validation's texts."""
_ESCAPES = str.maketrans(
    {sign: f"&#{ord(sign)};" for sign in "&<>|`![]()*_\\~#"} | {"\n": "<br>", "\r": "<br>"}
)
"""Whatever means something in Markdown or HTML, as an entity."""


def describe_run(tracker: GeneralTracker, recipe: Mapping[str, Any], text: str) -> None:
    """Give a tracker the recipe once: a value for each field, to TensorBoard its YAML ``text``."""
    if tracker.name == "tensorboard":
        # Its own form of parameters would be a second run beside this one.
        _written(tracker, "recipe", "\n".join("    " + line for line in text.splitlines()), 0)
    else:
        tracker.store_init_configuration(dict(_fields(recipe)))


def write_table(
    tracker: GeneralTracker, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int
) -> None:
    """Give a tracker a table, in its own form; one that has none is passed over."""
    if tracker.name == "tensorboard":
        lines = [columns, ["---"] * len(columns), *rows]
        _written(tracker, name, "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines), step)
    elif tracker.name == "trackio":
        trackio, pandas = (importlib.import_module(module) for module in ("trackio", "pandas"))
        frame = pandas.DataFrame([list(row) for row in rows], columns=list(columns))
        tracker.log({name: trackio.Table(dataframe=frame)}, step=step)
    elif tracker.name == "mlflow":
        table = {column: [row[place] for row in rows] for place, column in enumerate(columns)}
        importlib.import_module("mlflow").log_table(table, f"{name}.json")  # one file, which grows
    elif hasattr(tracker, "log_table"):
        tracker.log_table(name, columns=list(columns), data=[list(row) for row in rows], step=step)


def _written(tracker: Any, name: str, text: str, step: int) -> None:
    tracker.writer.add_text(name, text, global_step=step)
    tracker.writer.flush()


def _cell(value: Any) -> str:
    """For a table in Markdown: nothing in a text may end its cell or be markup."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("\r\n", "\n").translate(_ESCAPES)


def _fields(section: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str | float | bool]]:
    """Every field by its dotted name; what trackers do not know as a value is written as text."""
    for key, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from _fields(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value if isinstance(value, str | int | float) else str(value)
