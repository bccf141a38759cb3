"""A few episodes of each update on disk, token by token, for whoever wants to read what a run wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlgf import distributed
from rlgf.algorithms import Algorithm
from rlgf.evaluation.files import Evaluation
from rlgf.jsontext import to_json
from rlgf.models.language_model import LanguageModel
from rlgf.run.episodes import episode_records, evaluated_record, picked
from rlgf.run.metrics_log import rewind_lines
from rlgf.run.whole_folder import full_disk_named
from rlgf.types import Experience


class SamplesLog:
    """Appends to ``samples.jsonl``; reads what an update learned from and changes none of it. Format: docs/report.md."""

    def __init__(self, folder: Path, kept: int, policy: LanguageModel) -> None:
        """
        Args:
            kept: episodes of each update, and texts of each evaluation; 0 writes nothing.
        """
        self.path = folder / "samples.jsonl"
        self.kept = kept if distributed.is_main() else 0
        self.policy = policy

    def rewind(self, update: int) -> None:
        """Drop lines of updates that a resumed run is going to repeat."""
        if distributed.is_main():
            rewind_lines(self.path, update)

    def write(self, update: int, experience: Experience, row: Algorithm) -> None:
        """Some episodes of an update that is finished.

        Args:
            row: what the update ran.
        """
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
