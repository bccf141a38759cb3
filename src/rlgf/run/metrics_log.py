"""Metrics of a run on disk: JSON lines, and whatever tracker the recipe names."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker

from rlgf.config import Config
from rlgf.errors import UserError, one_line
from rlgf.evaluation.files import Evaluation
from rlgf.jsontext import to_json
from rlgf.run.trackers import COLUMNS, describe_run, write_table
from rlgf.run.whole_folder import full_disk_named


class MetricsLog:
    """Appends to ``metrics.jsonl`` and to the trackers of `accelerate`."""

    def __init__(self, config: Config, trackers: Sequence[GeneralTracker]) -> None:
        """
        Args:
            trackers: further ones than the configuration names.
        """
        self.path = config.folder / "metrics.jsonl"
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            log_with=[*config.training.trackers, *trackers] or None,
            project_dir=str(config.folder),
        )
        self.accelerator.init_trackers(config.name)
        for tracker in self._trackers:
            describe_run(tracker, config.model_dump(mode="json"), config.to_yaml())

    @property
    def _trackers(self) -> Sequence[GeneralTracker]:
        """Those of the main process, which alone are given anything."""
        return self.accelerator.trackers if self.accelerator.is_main_process else ()

    def rewind(self, update: int) -> None:
        """Drop lines of updates that a resumed run is going to repeat."""
        if self.accelerator.is_main_process:
            rewind_lines(self.path, update)

    def write(self, update: int, metrics: dict[str, float | str]) -> None:
        if not self.accelerator.is_main_process:
            return
        with full_disk_named(self.path.parent, "a line of metrics"), self.path.open("a") as file:
            file.write(to_json({"update": update, **metrics}) + "\n")
        numbers = {k: v for k, v in metrics.items() if isinstance(v, float | int)}
        self._tell(lambda tracker: tracker.log(numbers, step=update))

    def write_texts(self, update: int, split: str, evaluation: Evaluation, kept: int) -> None:
        """Give the trackers the first texts of an evaluation as a table.

        Args:
            kept: how many.
        """
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
    aside = path.with_suffix(".writing")
    aside.write_text("".join(kept))
    aside.replace(path)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines that a run has written so far."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
