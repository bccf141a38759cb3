"""The task that reads your own data: files or a data set of the hub, by column names."""

from __future__ import annotations

import string
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from rlgf.errors import UserError
from rlgf.models.loading import ModelConfig, load_tokenizer
from rlgf.tasks.base import check_split
from rlgf.tasks.rows import Row, Rows, Samples, file_rows, table_rows
from rlgf.types import Sample

_CHECKED = 10_000
"""Rows that are checked when a split is loaded; those behind them when they are asked for."""


class DataTask(BaseModel):
    """Your own data: JSON lines, CSV or Parquet files, or a data set of the hub, by column names.

    ``prompt_field`` holds a text, or the messages of a chat, which the chat template of ``chat_model``
    turns into one; or ``template`` makes the prompt from several columns. ``reference_field`` holds a
    text or a list of texts, or is None where there are no references. All other columns become the
    sample's. Rows are read when they are needed, so a data set need not fit into memory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: Path | tuple[Path, ...] = ()
    validation: Path | tuple[Path, ...] = ()
    test: Path | tuple[Path, ...] = ()
    data: str | None = None
    """A data set of the hub, instead of files."""
    subset: str | None = None
    splits: dict[str, str] = {}
    """What the hub's data set calls a split, where it is not 'train', 'validation' or 'test'."""
    prompt_field: str = "prompt"
    template: str | None = None
    """Such as ``{title}: {post} TL;DR:``, instead of a prompt field."""
    reference_field: str | None = "references"
    chat_model: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> DataTask:
        if (self.data is None) == (self.train == ()):
            raise ValueError(
                "give either files ('train', 'validation', 'test') or 'data', a data set of the hub"
            )
        return self

    def load(self, split: str) -> Samples:
        """The rows of the split, in their order.

        Raises:
            UserError: the split is not to be had, or a row among the first 10,000 does not hold what the
                options say; it names the file and the line, and the fields that there are.
        """
        check_split(split, "data")
        samples = Samples(self._rows(split), self._sample)
        for _ in islice(samples, _CHECKED):
            pass
        return samples

    def _rows(self, split: str) -> Rows:
        if self.data is not None:
            return table_rows(self.data, {"name": self.subset, "split": self.splits.get(split, split)})
        files = getattr(self, split)
        files = (files,) if isinstance(files, Path) else files
        if not files:
            raise UserError(f"task 'data' has no file for the split '{split}': give the option '{split}'.")
        return file_rows(files)

    def _sample(self, row: Row, place: str) -> Sample:
        prompt, used = self._prompt(row, place)
        references: Any = []
        if self.reference_field is not None:
            references = _field(row, self.reference_field, "reference_field", place)
            used = used | {self.reference_field}
        references = [references] if isinstance(references, str) else references
        if not isinstance(references, list) or not all(isinstance(text, str) for text in references):
            raise UserError(
                f"{place}: '{self.reference_field}' must be a text or a list of texts (it is {references!r})."
            )
        return Sample(prompt, tuple(references), {k: v for k, v in row.items() if k not in used})

    def _prompt(self, row: Row, place: str) -> tuple[str, set[str]]:
        """The prompt, and the columns that are in it."""
        if self.template is not None:
            names = {name for _, name, _, _ in string.Formatter().parse(self.template) if name}
            values = {name: _field(row, name, "template", place) for name in names}
            return self.template.format_map(values), names
        prompt = _field(row, self.prompt_field, "prompt_field", place)
        if isinstance(prompt, list) and self.chat_model is not None:
            prompt = self._chat.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        if not isinstance(prompt, str):
            hint = " or set 'chat_model' for the messages of a chat" if isinstance(prompt, list) else ""
            raise UserError(f"{place}: '{self.prompt_field}' must be a text{hint} (it is {prompt!r}).")
        return prompt, {self.prompt_field}

    @cached_property
    def _chat(self) -> Any:
        assert self.chat_model is not None, "asked for where it is set"
        return load_tokenizer(ModelConfig(model=self.chat_model))


def _field(row: Row, name: str, option: str, place: str) -> Any:
    if name not in row:
        there = ", ".join(sorted(row)) or "none"
        raise UserError(f"{place} has no field '{name}': set the option '{option}'. Fields: {there}.")
    return row[name]
