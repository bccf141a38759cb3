"""Chats: messages as data sets hold them, and what a model's own chat template makes of them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from rlgf.errors import UserError, shown
from rlgf.types import Message, Messages

_ASSISTANT = "assistant"
_SPEAKERS = {"human": "user", "gpt": _ASSISTANT}
"""What ShareGPT, whose messages have ``from`` and ``value``, calls the roles."""
_TAKEN = frozenset({"role", "from", "content", "value", "tool_calls", "function_call"})
_CALLS = ("tool_calls", "function_call")
_TOOLS = ("tool", "function", "ipython")
OPTIONS = "chat_template_kwargs"
"""The column, and the setting of a model, that holds what a chat template is told besides the messages."""
_MARK = "the-answer-stands-here"
"""A text that templates leave as it is."""


def is_chat(value: Any) -> bool:
    """Whether a column's value is meant as a message or as messages."""
    if isinstance(value, Mapping):
        return bool({"role", "from"} & value.keys())
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(m, Mapping) for m in value)


def read_messages(value: Any, name: str, place: str) -> Messages:
    """The messages that a column holds: a list of them, or one alone.

    The content of each is a text or a list of text parts, which are joined.

    Args:
        name: of the column.
        place: what a message to the user calls the row.

    Raises:
        UserError: it holds no messages, or one with something else than text.
    """
    listed = [value] if isinstance(value, Mapping) else value
    if not isinstance(listed, list | tuple) or not listed:
        raise UserError(_no_messages(value, name, place))
    found = []
    for number, given in enumerate(listed, start=1):
        role = given.get("role", given.get("from")) if isinstance(given, Mapping) else None
        if not isinstance(role, str) or not role or not {"content", "value"} & given.keys():
            raise UserError(_no_messages(value, name, place))
        role = _SPEAKERS.get(role, role) if "from" in given else role
        where = f"{place}: message {number} of '{name}'"
        if role in _TOOLS or any(given.get(call) for call in _CALLS):
            raise UserError(
                f"{where} belongs to the call of a tool, and only texts are learned from: drop the row."
            )
        _tell_of_others(given, name)
        found.append(Message(role, _text(given.get("content", given.get("value")), where)))
    return tuple(found)


def _tell_of_others(message: Mapping[str, Any], name: str) -> None:
    others = sorted(key for key, value in message.items() if key not in _TAKEN and value is not None)
    if others:
        # Once for each set of keys, since a row is not named.
        warnings.warn(
            f"the messages of '{name}' have {', '.join(map(repr, others))} beside 'role' and 'content', which is left out: "
            "put what the model is to read into 'content'.",
            stacklevel=2,
        )


def row_options(columns: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """What a row says to the chat template of its prompt, in the columns 'chat_template_kwargs' and 'tools'.

    Raises:
        UserError: one of them is not what it must be.
    """
    given = columns.get(OPTIONS) or {}
    if not isinstance(given, Mapping):
        raise UserError(
            f"{place or 'a row'}: '{OPTIONS}' must be a mapping, such as {{'enable_thinking': False}} (it is {shown(given)})."
        )
    found = {str(name): value for name, value in given.items() if value is not None}
    return found | {"tools": tools} if (tools := _tools(columns.get("tools"), place)) else found


def _tools(given: Any, place: str) -> list[Any]:
    """The tools that a row tells of; as text they are JSON, as in many data sets of the hub."""
    try:
        tools = json.loads(given) if isinstance(given, str) and given.strip() else given
    except ValueError:
        tools = given
    if tools and not (isinstance(tools, list | tuple) and all(isinstance(tool, Mapping) for tool in tools)):
        raise UserError(
            f"{place or 'a row'}: 'tools' must be a list of JSON schemas for the chat template, or such a list as a JSON text "
            f"(it is {shown(given)}): give the column another name where it holds something else."
        )
    return list(tools or [])


def set_defaults(tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any]) -> None:
    """Let a tokenizer's chat template take these values of its variables where nobody gives others.

    They stand in the template itself, so whoever reads chats through it agrees, and a saved policy reads them as it was
    trained to.
    """
    # In Jinja a plain value is written as in Python.
    lines = [
        f"{{%- if {name} is not defined %}}{{%- set {name} = {value!r} %}}{{%- endif %}}"
        for name, value in options.items()
    ]
    before, given = "".join(lines), tokenizer.chat_template

    def told(template: str) -> str:
        return template if template.startswith(before) else before + template

    if isinstance(given, dict):  # several by name, of which one is the default
        tokenizer.chat_template = {name: told(template) for name, template in given.items()}
    elif given is not None:
        tokenizer.chat_template = told(given)


def _no_messages(value: Any, name: str, place: str) -> str:
    return f"{place}: '{name}' must hold one message or more, each with 'role' and 'content' (it is {shown(value)})."


def _text(content: Any, where: str) -> str:
    parts = content if isinstance(content, list | tuple) and content else [content]
    texts = []
    for part in parts:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        if kind != "text":
            raise UserError(
                f"{where} holds a part of the type '{kind}', and only texts are read: drop the row."
            )
        text = part.get("text") if isinstance(part, Mapping) else part
        if not isinstance(text, str):
            raise UserError(
                f"{where} must have a text, or a list of text parts, as its 'content' (it is {shown(content)})."
            )
        texts.append(text)
    return "".join(texts)


def answered(
    prompt: str | Messages | None, sides: Sequence[tuple[str, str | Messages]], place: str
) -> tuple[Messages, list[str]]:
    """The question in a row of chats, and the answers to it.

    Each side is a text, the assistant's message that comes after the prompt, or a whole conversation that ends in
    such a message; its other messages are then the prompt.

    Args:
        prompt: None where the row has no prompt of its own. One that is a text is the user's message, unless the
            sides are whole conversations.
        sides: answers, each with the name of its column.

    Raises:
        UserError: a side does not end in a message of the assistant, or has another prompt than the rest.
    """
    asked, first = (prompt, "") if isinstance(prompt, tuple) else (None, "")
    answers = []
    for name, side in sides:
        if isinstance(side, str):
            answers.append(side)
            continue
        before = _before(prompt, side, name, place)
        if first and before != asked:
            which = f"'{first}' and '{name}'" if name != first else f"the conversations of '{name}'"
            raise UserError(f"{place}: {which} must be the same but for their last message, the assistant's.")
        asked, first = before, name
        answers.append(side[-1].content)
    if asked is None:
        asked = (Message("user", str(prompt)),)
    return asked, answers


def _before(prompt: str | Messages | None, side: Messages, name: str, place: str) -> Messages:
    """The messages that the last message of a side, the assistant's, answers."""
    if side[-1].role != _ASSISTANT:
        raise UserError(
            f"{place}: '{name}' must end in a message of the assistant, which is the answer (its last is of "
            f"'{side[-1].role}')."
        )
    before, known = side[:-1], prompt if isinstance(prompt, tuple) else ()
    repeats = bool(known) and side[: len(known)] == known
    if side[0].role == _ASSISTANT and prompt is not None and not repeats:
        # It goes on from the prompt.
        return ((Message("user", prompt),) if isinstance(prompt, str) else prompt) + before
    if not before:
        raise UserError(
            f"{place}: '{name}' holds nothing before the assistant's message: name the prompt's column with "
            "'prompt_field'."
        )
    # The prompt may lack a system's message.
    if known and known not in (side, before[-len(known) :]):
        raise UserError(f"{place}: '{name}' answers other messages than those of the prompt.")
    return before


def parted(messages: Messages) -> tuple[Messages, str]:
    """The messages before the assistant's turn, and what stands of that turn already: a last message of its own."""
    if messages and messages[-1].role == _ASSISTANT:
        return messages[:-1], messages[-1].content
    return messages, ""


def as_dicts(messages: Messages) -> list[dict[str, str]]:
    """Messages as chat APIs, templates and rewards have them: ``{"role": ..., "content": ...}``."""
    return [asdict(message) for message in messages]


def _in_parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def transcript(messages: Messages) -> str:
    """Messages as a plain text, for a reader without a chat template; one of the user's alone is its content."""
    if [message.role for message in messages] == ["user"]:
        return messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in messages)


@dataclass(frozen=True)
class ChatTemplate:
    """The chat template of a tokenizer."""

    tokenizer: PreTrainedTokenizerBase | None
    owner: str
    """Whose it is, for messages to the user: "'gpt2'"."""
    remedy: str
    """The remedy where it refuses messages."""

    @property
    def there(self) -> bool:
        return self.tokenizer is not None and self.tokenizer.chat_template is not None

    @cached_property
    def _reads_parts(self) -> bool:
        """Whether it wants the content of a message as a list of parts, as templates of some models that also see do: they
        leave out a plain text without a word."""

        def writes(content: Any) -> bool:
            assert self.tokenizer is not None
            try:
                asked = [{"role": "user", "content": content}]
                return _MARK in str(self.tokenizer.apply_chat_template(asked, tokenize=False))
            except Exception:  # a template raises what it likes
                return False

        return not writes(_MARK) and writes(_in_parts(_MARK))

    def prompt(self, messages: Messages, columns: Mapping[str, Any], place: str = "") -> str:
        """The text that the template makes of messages, up to where the assistant begins or its last message stops.

        Args:
            columns: those of the messages' row, which may tell the template more; see `row_options`.
            place: what a message to the user calls the row.

        Raises:
            UserError: there is no template, or it refuses the messages or the row's options.
        """
        options = row_options(columns, place)
        before, begun = parted(messages)
        # An assistant's message without a text is a place for the answer, which begins there.
        return self._rendered(messages if begun else before, place, answers=not begun, options=options)

    def conversation(self, messages: Messages, answer: str, place: str = "") -> tuple[str, str, str]:
        """What the template makes of messages and the assistant's answer, which may be of any content.

        Args:
            place: see `prompt`.

        Returns:
            What stands before the answer, the answer as the template writes it, and what stands after it.

        Raises:
            UserError: see `prompt`.
        """

        def whole(text: str) -> str:
            return self._rendered((*messages, Message(_ASSISTANT, text)), place, answers=None)

        before, _, after = whole(_MARK).rpartition(_MARK)
        text = whole(answer)
        if text.startswith(before) and text[len(before) :].endswith(after):
            answer = text[len(before) : len(text) - len(after)]
        return before, answer, after

    def between(self, messages: Messages, reply: str, options: Mapping[str, Any] | None = None) -> str:
        """What the template writes from the end of an answer to the beginning of the next one, with a reply of the
        user's in between.

        Args:
            messages: those before the first answer.
            options: see `row_options`.

        Raises:
            UserError: see `prompt`.
        """
        turns = Message(_ASSISTANT, _MARK), Message("user", reply)
        whole = self._rendered((*messages, *turns), "", answers=True, options=options)
        _, mark, after = whole.partition(_MARK)
        if not mark:
            raise UserError(
                f"the chat template of {self.owner} leaves out what the assistant said before, so a dialogue cannot go on: "
                f"choose a model whose template writes it, or leave 'environment' out."
            )
        return after

    def ending(self, messages: Messages, options: Mapping[str, Any] | None = None) -> str:
        """What of `between` stands before the reply: what ends an answer, and what begins the user's message.

        Raises:
            UserError: see `prompt`.
        """
        return self.between(messages, _MARK, options).partition(_MARK)[0]

    def _rendered(
        self,
        messages: Messages,
        place: str,
        *,
        answers: bool | None,
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """``answers``: whether the assistant begins an answer or goes on with its last message; None: it has ended."""
        start = f"{place}: " if place else ""
        if self.tokenizer is None or not self.there:
            raise UserError(
                f"{start}the prompt is the messages of a chat, and {self.owner} has no chat template: {self.remedy}."
            )
        given: list[Any] = as_dicts(messages)
        if self._reads_parts:
            given = [{**message, "content": _in_parts(message["content"])} for message in given]
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    given,
                    tokenize=False,
                    add_generation_prompt=answers is True,
                    continue_final_message=answers is False,
                    **(options or {}),
                )
            )
        except Exception as error:  # a template raises what it likes
            roles = ", ".join(message.role for message in messages)
            raise UserError(
                f"{start}the chat template of {self.owner} refuses the messages of {roles} "
                f"({' '.join(str(error).split()).rstrip('.')}): change their roles or their order, such as by putting a "
                f"system's message into the user's, or {self.remedy}."
            ) from error
