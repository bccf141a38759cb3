"""The task that reads your own data: files or a data set of the hub, by column names."""

from __future__ import annotations

import string
from functools import cached_property
from typing import Any

from rlgf.errors import UserError
from rlgf.models.loading import ModelConfig, load_tokenizer
from rlgf.tasks.rows import Row, Samples
from rlgf.tasks.source import Source, field, texts
from rlgf.types import Sample


class DataTask(Source):
    """Your own data: JSON lines, CSV or Parquet files, or a data set of the hub, by column names.

    ``prompt_field`` holds a text, or the messages of a chat, which the chat template of ``chat_model``
    turns into one; or ``template`` makes the prompt from several columns. ``reference_field`` holds a
    text or a list of texts, or is None where there are no references; with ``rejected_field`` the two are a
    preference pair. All other columns become the
    sample's. Rows are read when they are needed, so a data set need not fit into memory.
    """

    prompt_field: str = "prompt"
    template: str | None = None
    """Such as ``{title}: {post} TL;DR:``, instead of a prompt field."""
    reference_field: str | None = "references"
    rejected_field: str | None = None
    """Holds the worse text of a preference pair, of which ``reference_field`` holds the better one."""
    chat_model: str | None = None

    def load(self, split: str) -> Samples:
        """The rows of the split, in their order.

        Raises:
            UserError: the split is not to be had, or a row among the first 10,000 does not hold what the
                options say; it names the file and the line, and the fields that there are.
        """
        return self.samples(split, "data", self._sample)

    def _sample(self, row: Row, place: str) -> Sample:
        prompt, used = self._prompt(row, place)
        references: tuple[str, ...] = ()
        if self.reference_field is not None:
            value = field(row, self.reference_field, place, "set the option 'reference_field'")
            references = texts(value, self.reference_field, place)
            used = used | {self.reference_field}
        rejected = None
        if self.rejected_field is not None:
            rejected = self._rejected(row, references, place)
            used = used | {self.rejected_field}
        return Sample(prompt, references, {k: v for k, v in row.items() if k not in used}, rejected)

    def _rejected(self, row: Row, chosen: tuple[str, ...], place: str) -> str:
        name = self.rejected_field
        assert name is not None, "asked for where it is set"
        rejected = field(row, name, place, "set the option 'rejected_field'")
        if not isinstance(rejected, str):
            raise UserError(f"{place}: '{name}' must be a text (it is {rejected!r}).")
        if len(chosen) != 1:
            raise UserError(
                f"{place}: a pair needs one text to compare with '{name}' (there are {len(chosen)})."
            )
        if rejected == chosen[0]:
            raise UserError(
                f"{place}: '{self.reference_field}' and '{name}' are identical: a pair must have two sides."
            )
        return rejected

    def _prompt(self, row: Row, place: str) -> tuple[str, set[str]]:
        """The prompt, and the columns that are in it."""
        if self.template is not None:
            names = {name for _, name, _, _ in string.Formatter().parse(self.template) if name}
            values = {name: field(row, name, place, "set the option 'template'") for name in names}
            return self.template.format_map(values), names
        prompt = field(row, self.prompt_field, place, "set the option 'prompt_field'")
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
