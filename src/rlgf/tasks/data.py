"""The task that reads your own data: files or a data set of the hub, by column names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import ClassVar

from pydantic import field_validator

from rlgf.chat import ChatTemplate, answered, is_chat, read_messages
from rlgf.errors import UserError
from rlgf.models.loading import ModelConfig, load_tokenizer
from rlgf.tasks.rows import Row, Samples
from rlgf.tasks.source import (
    BRACES,
    Source,
    checked,
    field,
    is_absent,
    side,
    template_parts,
    texts,
    value_text,
)
from rlgf.types import Messages, Sample

REFERENCES = ("references", "completion", "chosen")
"""Columns that hold a reference, as data sets of the hub call them; of data at hand the first that there is counts."""
CONVERSATIONS = ("messages", "conversations")
"""Columns that hold the prompt with its reference; beside a prompt they are further columns, as in TRL."""
_PROMPT_OF_PAIR = (
    "a pair needs a column with its prompt, which the option 'prompt_field' names; only whole conversations in "
    "place of texts may hold it themselves"
)


class DataTask(Source):
    """Your own data: JSON, CSV, TSV or Parquet files, or a data set of the hub, by column names.

    ``prompt_field`` holds a text or the messages of a chat, or ``template`` makes the prompt from several columns.
    ``reference_field`` holds a text or a list of texts, or is None where there are no references; for prompts alone it
    can be left out. With ``rejected_field`` the two are a preference pair. Of a chat both may hold the assistant's
    message, or whole conversations that end in it, and the prompt is then all that comes before. Rewards and metrics
    are given every column by its name. Rows are read when they are needed, so a data set need not fit into memory.
    """

    prompt_field: str = "prompt"
    template: str | None = None
    """Such as ``{title}: {post} TL;DR:``, instead of a prompt field."""
    reference_field: str | None = "references"
    rejected_field: str | None = None
    """Holds the worse text of a preference pair, of which ``reference_field`` holds the better one."""
    chat_model: str | None = None
    """Whose chat template makes the policy's prompt of messages; by default the policy's own."""
    absent: str | None = None
    """What stands for a value that is null, in a template or as a prompt; by default such a row is refused."""

    hints: ClassVar[Mapping[str, str]] = {
        "prompt": "set the option 'prompt_field'",
        "references": "set the option 'reference_field', to null where the data has none",
        "rejected": "set the option 'rejected_field'",
    }
    """The remedy where a row lacks a column, for messages."""

    def load(self, split: str) -> Samples:
        """The rows of the split, in their order.

        Raises:
            UserError: there is no such split, it cannot be read, or a row among the first 10,000 does not hold what the
                options say; it names the file and the line, and the fields that there are.
        """
        rows = self.split_rows(split, "data")
        bare = self.rejected_field is None and "reference_field" not in self.model_fields_set
        bare = bare and not {str(self.reference_field), *REFERENCES, *CONVERSATIONS} & rows[0].keys()
        return checked(rows, partial(self._sample, bare=bare))

    def _sample(self, row: Row, place: str, *, bare: bool = False) -> Sample:
        """
        Args:
            bare: the data's first row has a prompt alone, so that others may lack references too.
        """
        references = [] if bare and self.reference_field not in row else self._references(row, place)
        prompt = self._prompt(row, references, place)
        sides = [(str(self.reference_field), one) for one in references]
        if self.rejected_field is not None:
            worse = field(row, self.rejected_field, place, self.hints["rejected"])
            sides.append((self.rejected_field, side(worse, self.rejected_field, place)))
        messages: Messages = ()
        if self.template is None and (
            not isinstance(prompt, str) or any(isinstance(one, tuple) for _, one in sides)
        ):
            messages, answers = answered(prompt, sides, place)
            prompt = "" if self._chat is None else self._chat.prompt(messages, row, place)
        else:
            answers = [one if isinstance(one, str) else one[-1].content for _, one in sides]
        assert isinstance(prompt, str), "where there are no messages there is a text"
        rejected = None if self.rejected_field is None else answers.pop()
        if references:
            texts(answers, str(self.reference_field), place)
        if rejected is not None:
            self._check_pair(rejected, answers, place)
        given = {"prompt", "references"} & {self.prompt_field, self.reference_field}
        columns = {name: value for name, value in row.items() if name not in given}
        return Sample(prompt, tuple(answers), columns, rejected, messages=messages)

    def _references(self, row: Row, place: str) -> list[str | Messages]:
        """Texts, or messages of which the last is the reference."""
        name = self.reference_field
        if name is None:
            return []
        hint = self.hints["references"]
        there = next((one for one in (*REFERENCES, *CONVERSATIONS) if one in row), None)
        if there is not None and "reference_field" not in self.model_fields_set:
            hint = f"set the option 'reference_field' to '{there}', or to null where that is no reference"
        value = field(row, name, place, hint)
        if is_chat(value):
            return [read_messages(value, name, place)]
        if isinstance(value, list) and value and all(map(is_chat, value)):
            return [read_messages(one, name, place) for one in value]
        return list(texts(value, name, place))

    def _check_pair(self, rejected: str, chosen: list[str], place: str) -> None:
        name = self.rejected_field
        if len(chosen) != 1:
            raise UserError(
                f"{place}: a pair needs one text to compare with '{name}' (there are {len(chosen)})."
            )
        if rejected == chosen[0]:
            raise UserError(
                f"{place}: '{self.reference_field}' and '{name}' are identical: a pair must have two sides."
            )

    @field_validator("template")
    @classmethod
    def _readable(cls, template: str | None) -> str | None:
        if template is not None and all(name is None for _, name in template_parts(template)):
            raise ValueError(f"it names no column, so that all prompts would be the same: {BRACES}")
        return template

    @cached_property
    def _parts(self) -> list[tuple[str, str | None]]:
        return template_parts(self.template or "")

    def _value(self, row: Row, name: str, place: str) -> str:
        hint = "give every row the columns of 'template', in which a brace that belongs to the text is written twice"
        return value_text(field(row, name, place, hint), name, place, self.absent)

    def _prompt(self, row: Row, references: list[str | Messages], place: str) -> str | Messages | None:
        """The prompt; None where it is a part of the references' conversations."""
        if self.template is not None:
            return "".join(
                text + ("" if name is None else self._value(row, name, place)) for text, name in self._parts
            )
        name = self.prompt_field
        named = "prompt_field" in self.model_fields_set
        if name not in row and not named and any(isinstance(one, tuple) for one in references):
            return None
        hint = self.hints["prompt"] if self.rejected_field is None else _PROMPT_OF_PAIR
        prompt = field(row, name, place, hint)
        if self.absent is not None and is_absent(prompt):
            return self.absent
        return side(prompt, name, place, "set the option 'absent' to what stands for it")

    @cached_property
    def _chat(self) -> ChatTemplate | None:
        if self.chat_model is None:
            return None
        tokenizer = load_tokenizer(ModelConfig(model=self.chat_model))
        if tokenizer.chat_template is None:
            raise UserError(
                f"task 'data', option 'chat_model' (it is '{self.chat_model}'): its tokenizer has no chat template; name "
                "a model that was trained on chats."
            )
        return ChatTemplate(tokenizer, f"'{self.chat_model}'", "set another 'chat_model'")
