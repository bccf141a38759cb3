"""CommonGen (Lin et al., arXiv 1911.03705): write a sentence of everyday life that uses given words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from rlgf.errors import UserError, shown
from rlgf.strict import Strict
from rlgf.tasks.base import check_split
from rlgf.tasks.jsonfiles import JsonLines
from rlgf.tasks.rows import Row, Rows, placed, table_rows
from rlgf.tasks.source import field, template_parts, texts
from rlgf.types import Sample

_HUB = "allenai/common_gen"
_HUB_SPLITS = {"train": "train", "validation": "validation", "test": "validation"}


class CommonGenTask(Strict):
    """CommonGen: write one sentence that uses three to five given concepts.

    A sample is a set of concepts with all its reference sentences; the concepts are also its column
    ``concepts``. ``folder`` holds ``train``, ``validation`` and ``test`` as ``.jsonl`` or ``.jsonl.gz``, a
    line such as ``{"concepts": ["field", "stand"], "references": ["He stands in the field."]}``. Without a
    folder the data comes from the hub, which keeps back the references of its test split: 'validation'
    and 'test' are then both its validation split, as most papers report it.
    """

    folder: Path | None = None
    template: str = "generate a sentence with: {concepts}."
    """The prompt; a causal model may need a space or a line break at its end."""
    min_concepts: int = Field(default=1, ge=1)
    """Smaller sets are left out of every split. Three quarters of the training sets have three concepts, and
    all test sets four or five: a policy may learn on the first to write too little for the second."""

    @field_validator("template")
    @classmethod
    def _with_concepts(cls, template: str) -> str:
        if [name for _, name in template_parts(template) if name is not None] != ["concepts"]:
            raise ValueError("it must hold {concepts} once and no other braces")
        return template

    def load(self, split: str) -> list[Sample]:
        """The samples of 'train', 'validation' or 'test', always in the same order.

        Raises:
            UserError: there is no such split, it cannot be read, or a line or row does not hold concepts and references.
        """
        check_split(split, "commongen")
        samples = (self._sample(row, place) for row, place in self._records(split))
        return [sample for sample in samples if len(sample.columns["concepts"]) >= self.min_concepts]

    def _records(self, split: str) -> list[tuple[Row, str]]:
        """A record a set of concepts, with what a message calls it."""
        if self.folder is None:
            return _by_concept_set(table_rows(_HUB, {"split": _HUB_SPLITS[split]}))
        return list(placed(JsonLines(self._file(self.folder, split))))

    def _sample(self, row: Row, place: str) -> Sample:
        concepts = field(row, "concepts", place)
        if not isinstance(concepts, list) or not concepts or not all(isinstance(c, str) for c in concepts):
            raise UserError(f"{place}: 'concepts' must be a list of words (it is {shown(concepts)}).")
        references = texts(field(row, "references", place), "references", place)
        prompt = self.template.format(concepts=" ".join(concepts))
        return Sample(prompt, references, {"concepts": concepts})

    @staticmethod
    def _file(folder: Path, split: str) -> Path:
        for file in (folder / f"{split}.jsonl.gz", folder / f"{split}.jsonl"):
            if file.is_file():
                return file
        raise UserError(
            f"task 'commongen' has no split '{split}': {folder} holds neither {split}.jsonl.gz nor {split}.jsonl."
        )


def _by_concept_set(rows: Rows) -> list[tuple[Row, str]]:
    """The hub's rows, one a reference, as one record a set of concepts, with what a message calls it."""
    sets: dict[Any, tuple[Row, str]] = {}
    for row, place in placed(rows):
        number, concepts, target = (
            field(row, name, place) for name in ("concept_set_idx", "concepts", "target")
        )
        record, _ = sets.setdefault(number, ({"concepts": concepts, "references": []}, place))
        record["references"].append(target)
    return list(sets.values())
