"""From a server's reply to how probable it finds a text."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from rlgf.guides.reply import Answer, UnusableAnswerError, first_choice, used
from rlgf.objectives.alignment import Piece

_HALF = ("\ufffd", "bytes:")
"""What servers write of a token that is a part of a character."""
_ROUNDING = 1e-3
"""Nats that a log-probability may be above 0."""


class NoScoresError(Exception):
    """A reply that does not say how probable the text is; asking again does not mend that."""


def read_scores(reply: Any, prompt: str, text: str, end_token: str = "") -> Answer:
    """The tokens of a text after a prompt, which the server was sent as one.

    Args:
        end_token: what stands after the text and is one token, whose piece has no characters; nothing for none.

    Servers count the characters before a token in different ways, and some not at all, so the tokens themselves say
    where they stand.

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
    spelled = places([str(token) for token in tokens[: prompt_tokens or None]], prompt + text + end_token)
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
    """
    Raises:
        NoScoresError: it is not a log-probability.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not value <= _ROUNDING:
        raise NoScoresError(f"gives {value!r} as a log-probability, which must be a number of at most 0")
    return min(float(value), 0.0)
