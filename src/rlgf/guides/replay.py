"""A guide that answers from a file: recorded completions, or the export of another guide's cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from rlgf.chat import is_chat, read_messages
from rlgf.errors import UserError
from rlgf.guides.answer_cache import guide_names
from rlgf.guides.base import GuideSettings, Request
from rlgf.jsontext import whole_characters
from rlgf.models.language_model import LanguageModel
from rlgf.tasks.jsonfiles import JsonLines
from rlgf.tasks.rows import Row, placed
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
        try:
            rows = list(placed(JsonLines(config.file)))
            if "totals" in rows[0][0]:  # as evaluations begin
                rows = rows[1:]
            for row, place in rows:
                keys, completion = _parse(row, place)
                for key in keys:
                    self._completions.setdefault(key, []).append(completion)
                if isinstance(row.get("guide"), dict) and row["guide"] not in guides:
                    guides.append(row["guide"])
        except UserError as error:
            raise UserError(f"'guide.file' {error}") from error
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


_Key = str | tuple[Messages, str]
"""What a completion goes on from: a text, or a chat with the beginning of its answer."""


def _parse(row: Row, place: str) -> tuple[list[_Key], Completion]:
    """Raises a `UserError` where a row is not a recorded completion."""
    sent = "prefix" in row
    prefix: Any = row.get("prefix", row.get("prompt"))
    answer = row.get("answer", row)
    if not isinstance(answer, dict):
        raise UserError(f"{place}: 'answer' must be an object, as the cache of a guide writes it.")
    text, finished = answer.get("completion", answer.get("text")), bool(answer.get("finished", False))
    text = read_messages(text, "completion", place)[-1].content if is_chat(text) else text
    chat = prefix if is_chat(prefix) else row.get("messages")
    if not (isinstance(prefix, str) or is_chat(prefix)) or not isinstance(text, str):
        raise UserError(f"{place} must hold the texts 'prompt' and 'completion'.")
    keys: list[_Key] = []
    if is_chat(chat):
        begins = row.get("prompt_length") or 0
        if sent and not (isinstance(prefix, str) and isinstance(begins, int)):
            raise UserError(
                f"{place}: 'prefix' must be a text, and 'prompt_length' a whole number, as the cache writes them."
            )
        written = prefix[begins:] if sent else ""
        keys.append((read_messages(chat, "prompt" if chat is prefix else "messages", place), written))
    if isinstance(prefix, str) and not (sent and keys):
        keys.append(prefix)
    return keys, Completion(text, finished)
