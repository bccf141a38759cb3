"""A guide that answers from a file: recorded completions, or the export of another guide's cache."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from rlgf.chat import is_chat, read_messages
from rlgf.errors import UserError
from rlgf.guides.answer_cache import guide_names
from rlgf.guides.base import GuideSettings, Request
from rlgf.jsontext import whole_characters
from rlgf.models.language_model import LanguageModel
from rlgf.types import Completion, Messages


class ReplayGuideConfig(GuideSettings):
    """Recorded completions: JSON lines with ``prompt``, ``completion`` and, if they end there, ``finished``.

    The prompt of a chat is the list of its messages, or stands beside the prompt's text as ``messages``.

    What ``rlgf guide cache --export`` and ``rlgf eval --output`` write are such files too, and so are
    the texts of a finished run, ``evaluation/policy.jsonl`` in its folder.
    """

    mark: ClassVar[str] = "file"

    file: Path

    def build(self, start: LanguageModel | None) -> ReplayGuide:
        return ReplayGuide(self)


class ReplayGuide:
    """Completions of exactly the prefixes that a file holds; of several for one prefix, the request's seed picks."""

    def __init__(self, config: ReplayGuideConfig) -> None:
        """
        Raises:
            UserError: the file is not there, or a line of it is not a recorded completion.
        """
        self.config = config
        self._completions: dict[_Key, list[Completion]] = {}
        guides: list[dict[str, Any]] = []
        if not config.file.is_file():
            raise UserError(f"'guide.file' {config.file} is not there: give a file of JSON lines.")
        for number, line in enumerate(_lines(config.file), start=1):
            if not line.strip():
                continue
            place = f"'guide.file' {config.file}, line {number}"
            try:
                row = json.loads(line)
                if number == 1 and "totals" in row:  # as evaluations begin
                    continue
                keys, completion = _parse(row, place)
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{place}: it must be a JSON object with the texts 'prompt' and 'completion' ({error})."
                ) from error
            for key in keys:
                self._completions.setdefault(key, []).append(completion)
            if isinstance(row.get("guide"), dict) and row["guide"] not in guides:
                guides.append(row["guide"])
        if not self._completions:
            raise UserError(f"'guide.file' {config.file} holds no completions: give a file of JSON lines.")
        if len(guides) > 1:
            raise UserError(
                f"'guide.file' {config.file} mixes the answers of several guides ({', '.join(guide_names(guides))}): "
                "write one guide's with `rlgf guide cache --export FILE --model NAME`."
            )

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        """See `Guide.write`.

        Raises:
            UserError: the file has nothing for a prefix.
        """
        answers: list[Completion] = []
        for request in requests:
            # A chat is the same whatever a policy's template makes of it.
            chat = (request.messages, whole_characters(request.written))
            recorded = self._completions.get(chat) if request.messages else None
            recorded = recorded or self._completions.get(whole_characters(request.prefix))
            if not recorded:
                raise UserError(
                    f"'guide.file' {self.config.file} has no completion of {request.prefix[-60:]!r}: a recorded "
                    "guide can begin texts at the prompts it was recorded for, and finish none of its own."
                )
            answers.append(recorded[request.seed % len(recorded)])
        return answers

    def recorded(self, requests: Sequence[Request]) -> list[Completion | None]:
        """See `RecordedGuide.recorded`; raises what `write` does."""
        return list(self.write(requests))


def _lines(file: Path) -> list[str]:
    """Raises a `UserError` where the file cannot be read, or is not in UTF-8."""
    try:
        # Only where a line ends in a JSON-lines file: a text may hold other separators.
        return file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'guide.file' {file} cannot be read as JSON lines in UTF-8 ({error}).") from error


_Key = str | tuple[Messages, str]
"""What a completion goes on from: a text, or a chat with the beginning of its answer."""


def _parse(row: Any, place: str) -> tuple[list[_Key], Completion]:
    sent = "prefix" in row
    prefix = row["prefix"] if sent else row["prompt"]
    answer = row.get("answer", row)
    if not isinstance(answer, dict):
        raise TypeError("'answer' must be an object, as the cache of a guide writes it")
    text, finished = answer.get("completion", answer.get("text")), bool(answer.get("finished", False))
    text = read_messages(text, "completion", place)[-1].content if is_chat(text) else text
    chat = prefix if is_chat(prefix) else row.get("messages")
    if not (isinstance(prefix, str) or is_chat(prefix)) or not isinstance(text, str):
        raise TypeError("one of them is not a text")
    keys: list[_Key] = []
    if is_chat(chat):
        written = prefix[row.get("prompt_length") or 0 :] if sent else ""
        keys.append(
            (
                read_messages(chat, "prompt" if chat is prefix else "messages", place),
                whole_characters(written),
            )
        )
    if isinstance(prefix, str) and not (sent and keys):
        keys.append(whole_characters(prefix))
    return keys, Completion(whole_characters(text), finished)
