"""The tokens of two tokenizers over one text, cut into chunks that both can see the borders of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

LEAST = -100.0
"""Nats. Servers write -9999 or so for a token that cannot be, and one such token would be all that an update learns of."""


class Piece(NamedTuple):
    """A token of a guide's in a text that it scores, or several where no character ends between them."""

    begin: int
    """Where it begins, in characters of the text."""
    end: int
    logprob: float
    """Of the whole piece, after the prompt and all pieces before it."""


def chunks(
    ends: Sequence[int | None], pieces: Sequence[Piece], own: Sequence[bool], *, ended: bool = False
) -> tuple[list[int], list[float]]:
    """Cut a text where a token of the policy's ends and a piece of the guide's begins or ends.

    With one tokenizer every token is a chunk. No part of a chunk can be told from the rest, so a chunk is one action, of
    which the policy and the guide each have one probability. Tokens get none that the guide does not see whole, such as
    those before the first common border, tokens that add no text, but for the one that ends it where the guide says how
    probable that is, and tokens of a chunk of which somebody else than the policy wrote a part.

    Args:
        ends: where each of the policy's tokens ends, in characters; None within a character.
        pieces: what the guide says of the text, in its order and without gaps; they may leave out its beginning and
            its end.
        own: which of the tokens the policy wrote.
        ended: whether the last token ends the text, and the last piece, which has no characters, says how probable
            that is.

    Returns:
        For each token the number of its chunk, from 1 on and 0 for none, and the guide's log-probability of that chunk,
        at least `LEAST` for each piece.
    """
    if ended:
        numbers, logprobs = chunks(ends[:-1], pieces[:-1], own[:-1])
        # Only after a text that both have read whole is it the end of the same text.
        whole = pieces[-1].begin == (ends[-2] if len(ends) > 1 else 0)
        counts = whole and own[-1]
        last = max(pieces[-1].logprob, LEAST) if counts else 0.0
        return [*numbers, max(numbers, default=0) + 1 if counts else 0], [*logprobs, last]
    numbers, logprobs = [0] * len(ends), [0.0] * len(ends)
    borders = {place for piece in pieces for place in (piece.begin, piece.end)}
    begin, last, number, piece = 0, 0, 0, 0
    waiting: list[int] = []
    for token, end in enumerate(ends):
        if end == last and not (waiting and ends[token - 1] is None):
            continue  # It adds no text.
        waiting.append(token)
        if end is None:
            continue
        last = end
        if end not in borders:
            continue
        total = 0.0
        while piece < len(pieces) and pieces[piece].begin < end:
            total += max(pieces[piece].logprob, LEAST)
            piece += 1
        if begin in borders and all(own[one] for one in waiting):
            number += 1
            for one in waiting:
                numbers[one], logprobs[one] = number, total
        begin, waiting = end, []
    return numbers, logprobs


def as_pieces(ends: Sequence[int | None], logprobs: Sequence[float], begin: int = 0) -> list[Piece]:
    """The pieces of a text that stand between the known ends of tokens.

    Args:
        ends: where each token ends; None where that is within a character.
        logprobs: of each token.
        begin: where the first one begins.
    """
    found: list[Piece] = []
    total = 0.0
    for end, logprob in zip(ends, logprobs, strict=True):
        total += logprob
        if end is not None and end > begin:
            found.append(Piece(begin, end, total))
            begin, total = end, 0.0
    return found
