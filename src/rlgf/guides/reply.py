"""Reads a server's reply: the text in it, or how probable it finds a given text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlgf.jsontext import whole_characters
from rlgf.objectives.alignment import Piece

ENDED = ("stop", "eos", "eos_token", "end_turn", "stop_sequence")
"""What servers call it when a model ended its text itself."""
_CUT = ("length", "max_tokens")
"""And when the limit ended it."""
_REFUSED = re.compile(
    r"content_filter.*|tool_calls|function_call|safety|recitation|prohibited_content|blocklist|spii|sensitive|refusal"
)
"""When a filter or a wish to call a tool ended it."""
_BROKEN = (
    "error",
    "abort",
    "aborted",
    "cancelled",
    "canceled",
    "network_error",
    "insufficient_system_resource",
)
"""And when the server gave up on it; what it has of the text is not what the model would have said."""
_THINKING = ("reasoning_content", "reasoning", "thinking")
"""Where servers put a model's thinking, beside its answer."""
_TAG = "(?:think|thinking|thought|reasoning)"
_BLOCKS = re.compile(rf"(?:\s*<{_TAG}>.*?(?:</{_TAG}>|\Z))+\s*", flags=re.DOTALL)
_END_OF_BLOCK = re.compile(rf"(?:(?!<{_TAG}>).)*?</{_TAG}>\s*", flags=re.DOTALL)
"""Of a block that the server's chat template began."""


class UnusableAnswerError(Exception):
    """A reply without a completion in it; asked for again."""


@dataclass(frozen=True)
class Answer:
    """What a server said, and what it charges."""

    text: str
    finished: bool
    """Whether the model ended its text itself."""
    refused: bool
    prompt_tokens: int
    completion_tokens: int
    retries: int = 0
    thought_only: bool = False
    """Whether the model thought and did not come to an answer."""
    mended: bool = False
    """Whether the text held half characters, which were replaced."""
    pieces: tuple[Piece, ...] = ()
    """The guide's tokens of a text that was to be scored."""


def read_reply(reply: Any, style: Literal["completions", "chat"]) -> Answer:
    """The first choice of a reply.

    Raises:
        UnusableAnswerError: there is no text in it, and no reason why there is none; or the server gave up on it.
    """
    choice, field = first_choice(reply), "text" if style == "completions" else "content"
    message = choice if style == "completions" else choice.get("message")
    message = message if isinstance(message, Mapping) else {}
    reason, content = str(choice.get("finish_reason")).lower(), message.get(field)
    refused = bool(_REFUSED.fullmatch(reason) or message.get("refusal"))
    refused |= _has_part(content, "refusal")
    said = _joined(content)
    text = _without_thinking(said) if said and style == "chat" else said
    thought = said != text or _has_part(content, "thinking", "reasoning") or any(map(message.get, _THINKING))
    prompt_tokens, completion_tokens = used(reply)
    # A model whose limit ran out in thought, on some chat servers without a word of what it thought.
    wrote = completion_tokens > 0 or _usage(reply).get("completion_tokens") != 0
    cut = style == "chat" and reason in _CUT and wrote
    thought_only = not refused and not text and (thought or cut)
    said_nothing = (field in message and reason in ENDED) or (text is not None and reason in _CUT)
    if not text and not (refused or thought_only or said_nothing):
        raise UnusableAnswerError("a choice without text")
    text = "" if refused or text is None else text
    whole = whole_characters(text)
    return Answer(
        text=whole,
        finished=reason in ENDED,
        refused=refused,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        thought_only=thought_only,
        mended=whole != text,
    )


def first_choice(reply: Any) -> Mapping[str, Any]:
    """
    Raises:
        UnusableAnswerError: there is none, or the server gave up on it.
    """
    choices = reply.get("choices") if isinstance(reply, Mapping) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise UnusableAnswerError("a reply without choices")
    choice = choices[0]
    if str(reason := choice.get("finish_reason")).lower() in _BROKEN:
        raise UnusableAnswerError(f"a text that the server gave up on ({reason})")
    return choice


def used(reply: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens of the prompt and of the completion, 0 where a server does not say."""
    usage = _usage(reply)
    prompt, completion, total = (
        _count(usage.get(f"{what}_tokens")) for what in ("prompt", "completion", "total")
    )
    # Some servers, such as xAI and Gemini, count what a model thinks in the total alone, and charge for it.
    return prompt, max(completion, total - prompt) if prompt else completion


def _usage(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    usage = reply.get("usage")
    return usage if isinstance(usage, Mapping) else {}


def _without_thinking(text: str) -> str:
    """What follows the blocks of thinking at the beginning of an answer."""
    found = _BLOCKS.match(text) or _END_OF_BLOCK.match(text)
    return text[found.end() :] if found else text


def _has_part(content: Any, *kinds: str) -> bool:
    parts = content if isinstance(content, list) else []
    return any(isinstance(part, Mapping) and part.get("type") in kinds for part in parts)


def _count(said: Any) -> int:
    """A number of tokens, or 0 where a server says something else."""
    return int(said) if isinstance(said, int | float) and 0 < said < 1e12 else 0


def _joined(content: Any) -> str | None:
    """A text, or the text parts of a list; parts of other kinds, such as thinking, are no answer."""
    content = [content] if isinstance(content, Mapping) else content
    if not isinstance(content, list):
        return content if isinstance(content, str) else None
    parts = [
        part if isinstance(part, str) else part.get("text", "")
        for part in content
        if isinstance(part, str)
        or (isinstance(part, Mapping) and part.get("type", "text") in ("text", "output_text"))
    ]
    return "".join(part for part in parts if isinstance(part, str))


_HALF = ("\ufffd", "bytes:")
"""What servers write of a token that is a part of a character."""
_ROUNDING = 1e-3
"""Nats that a log-probability may be above 0."""


class NoScoresError(Exception):
    """A reply that does not say how probable the text is; asking again does not mend that."""


def read_scores(reply: Any, prompt: str, text: str, end_token: str = "") -> Answer:
    """The tokens of a text after a prompt, which the server was sent as one.

    Servers count the characters before a token in different ways, and some not at all, so the tokens themselves say
    where they stand. After the text may stand an ``end_token``, whose piece has no characters.

    Raises:
        UnusableAnswerError: there is nothing in it.
        NoScoresError: it has no log-probabilities of the text, or they do not fit it.
    """
    choice = first_choice(reply)
    if not choice.keys() & {"logprobs", "text"}:
        raise UnusableAnswerError("a choice without text")
    given = choice.get("logprobs")
    if not isinstance(given, Mapping):
        raise NoScoresError(
            "gives no log-probabilities of a prompt (it was asked with 'echo' and 'logprobs')"
        )
    tokens, logprobs = given.get("tokens"), given.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(logprobs, list) or len(tokens) != len(logprobs):
        raise NoScoresError("gives no list of tokens with one log-probability for each of them")
    prompt_tokens, completion_tokens = used(reply)
    # A token is written after the text.
    names, whole = [str(token) for token in tokens[: prompt_tokens or None]], prompt + text + end_token
    spelled = places(names, whole)
    if spelled is None and names[:1] == names[1:2]:
        # A chat template writes the token that begins a text, and some servers put it before the text once more.
        names, logprobs = names[1:], logprobs[1:]
        spelled = places(names, whole)
    if spelled is None:
        raise NoScoresError(
            "gives tokens that do not spell the text it was sent, so it does not repeat the prompt or names its tokens otherwise"
        )
    found = []
    for first, last, begin, end in spelled:
        if begin < len(prompt):
            continue
        values = logprobs[first:last]
        if first == 0 and values[0] is None:
            continue  # Nothing stands before it.
        found.append(Piece(begin - len(prompt), end - len(prompt), sum(map(_number, values))))
    if end_token:
        closing = found.pop() if found else Piece(-1, -1, 0.0)
        if closing[:2] != (len(text), len(text) + len(end_token)):
            raise NoScoresError(f"does not take 'guide.end_token' {end_token!r} for one token")
        found.append(Piece(len(text), len(text), closing.logprob))
    return Answer("", False, False, prompt_tokens, completion_tokens, pieces=tuple(found))


def places(tokens: Sequence[str], text: str) -> list[tuple[int, int, int, int]] | None:
    """Where tokens stand in the text that they spell.

    Tokens of which no character ends in between are taken together. Before the text may stand tokens that are none of
    it, such as one that begins a text.

    Returns:
        Of each the first token, the one after the last, the first character and the one after the last; None where they
        spell another text.
    """
    found: list[tuple[int, int, int, int]] = []
    number, place = 0, 0
    while place < len(text):
        if number == len(tokens):
            return None
        token, last = tokens[number], number + 1
        if text.startswith(token, place):
            end = place + len(token)
        elif any(sign in token for sign in _HALF):
            halves = itertools.takewhile(
                lambda one: not one or any(sign in one for sign in _HALF), tokens[last:]
            )
            last += len(list(halves))
            end = len(text) if last == len(tokens) else text.find(tokens[last], place + 1)
            # The next token may be a space, and some of these have one before their part of a character.
            spaces = sum(one.count(" ") + one.count(r"\x20") for one in tokens[number:last])
            while 0 <= end < len(text) and text.count(" ", place, end) < spaces:
                end = text.find(tokens[last], end + 1)
        elif not found and text[0].isspace() and text.startswith(token, 1):
            end = 1 + len(token)  # Some tokenizers drop the first space of what they decode.
        elif not found:
            end = place
        else:
            return None
        if end < place:
            return None
        if end > place or found:
            found.append((number, last, place, end))
        number, place = last, end
    return found


def _number(value: Any) -> float:
    """Raises a `NoScoresError` where it is not a log-probability."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value <= _ROUNDING:
        raise NoScoresError(f"gives {value!r} as a log-probability, which must be a number of at most 0")
    return min(float(value), 0.0)
