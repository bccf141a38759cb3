"""The task that reads your own data: files or a data set of the hub, by column names."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import field_validator

from rlgf.errors import UserError
from rlgf.models.loading import ModelConfig, load_tokenizer
from rlgf.tasks.rows import Row, Samples
from rlgf.tasks.source import Source, field, template_parts, texts, value_text
from rlgf.types import Sample

_REFERENCES = "set the option 'reference_field', to null where the data has none"


class DataTask(Source):
    """Your own data: JSON, CSV, TSV or Parquet files, or a data set of the hub, by column names.

    ``prompt_field`` holds a text, or the messages of a chat, which the chat template of ``chat_model``
    turns into one; or ``template`` makes the prompt from several columns. ``reference_field`` holds a
    text or a list of texts, or is None where there are no references; with ``rejected_field`` the two are a
    preference pair. Rewards and metrics are given every column by its name. Rows are read when they are needed, so a
    data set need not fit into memory.
    """

    prompt_field: str = "prompt"
    template: str | None = None
    """Such as ``{title}: {post} TL;DR:``, instead of a prompt field."""
    reference_field: str | None = "references"
    rejected_field: str | None = None
    """Holds the worse text of a preference pair, of which ``reference_field`` holds the better one."""
    chat_model: str | None = None
    absent: str | None = None
    """What stands for a value that is null, in a template or as a prompt; by default such a row is refused."""

    def load(self, split: str) -> Samples:
        """The rows of the split, in their order.

        Raises:
            UserError: the split is not to be had, or a row among the first 10,000 does not hold what the
                options say; it names the file and the line, and the fields that there are.
        """
        return self.samples(split, "data", self._sample)

    def _sample(self, row: Row, place: str) -> Sample:
        prompt = self._prompt(row, place)
        references: tuple[str, ...] = ()
        if self.reference_field is not None:
            value = field(row, self.reference_field, place, _REFERENCES)
            references = texts(value, self.reference_field, place)
        rejected = None if self.rejected_field is None else self._rejected(row, references, place)
        given = {"prompt", "references"} & {self.prompt_field, self.reference_field}
        return Sample(prompt, references, {k: v for k, v in row.items() if k not in given}, rejected)

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

    @field_validator("template")
    @classmethod
    def _readable(cls, template: str | None) -> str | None:
        if template is not None:
            template_parts(template)
        return template

    @cached_property
    def _parts(self) -> list[tuple[str, str | None]]:
        return template_parts(self.template or "")

    def _value(self, row: Row, name: str, place: str) -> str:
        hint = "set the option 'template', in which a brace that belongs to the text is written twice"
        return value_text(field(row, name, place, hint), name, place, self.absent)

    def _prompt(self, row: Row, place: str) -> str:
        if self.template is not None:
            return "".join(
                text + ("" if name is None else self._value(row, name, place)) for text, name in self._parts
            )
        prompt = field(row, self.prompt_field, place, "set the option 'prompt_field'")
        prompt = self.absent if prompt is None and self.absent is not None else prompt
        if isinstance(prompt, list) and self.chat_model is not None:
            prompt = self._rendered(prompt, place)
        if not isinstance(prompt, str):
            hint = " or set 'chat_model' for the messages of a chat" if isinstance(prompt, list) else ""
            raise UserError(f"{place}: '{self.prompt_field}' must be a text{hint} (it is {prompt!r}).")
        return prompt

    def _rendered(self, messages: list[Any], place: str) -> str:
        """What the chat template of ``chat_model`` makes of messages, up to where the assistant begins."""
        if not messages or not all(
            isinstance(m, dict) and m.get("role") and "content" in m for m in messages
        ):
            raise UserError(
                f"{place}: '{self.prompt_field}' must hold one message or more, each with 'role' and 'content' (it is "
                f"{messages!r})."
            )
        chat = self._chat
        try:
            return str(chat.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # a template raises what it likes
            roles = ", ".join(str(message["role"]) for message in messages)
            raise UserError(
                f"{place}: the chat template of '{self.chat_model}' refuses the messages of {roles} "
                f"({' '.join(str(error).split()).rstrip('.')}): change their roles or their order, such as by putting a "
                "system's message into the user's, or set another 'chat_model'."
            ) from error

    @cached_property
    def _chat(self) -> Any:
        assert self.chat_model is not None, "asked for where it is set"
        tokenizer = load_tokenizer(ModelConfig(model=self.chat_model))
        if tokenizer.chat_template is None:
            raise UserError(
                f"task 'data', option 'chat_model' (it is '{self.chat_model}'): its tokenizer has no chat template; name "
                "a model that was trained on chats."
            )
        return tokenizer
