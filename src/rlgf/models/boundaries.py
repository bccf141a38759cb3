"""Where each token ends in the text that a sequence of tokens spells."""

from __future__ import annotations

from collections.abc import Sequence

from rlgf.models.text import Codec

_CONTEXT = 64
"""How many tokens before one are enough to decode it."""
_HALF = "\ufffd"


def token_ends(codec: Codec, ids: Sequence[int], before: Sequence[int], text: str) -> list[int | None]:
    """Where tokens end in their text, in characters.

    A character that several tokens spell ends with the last of them. Tokens that add no text, as special ones do, end
    where the one before them does.

    Args:
        before: the tokens that they follow.
        text: what they spell, or the beginning of it.

    Returns:
        None for a token that ends within a character, or after the text.
    """
    found: list[int | None] = []
    place, known, inside = 0, list(before[-_CONTEXT:]), False
    for token in ids:
        piece = codec.decode([token], known[-_CONTEXT:])
        known.append(token)
        if not piece and inside:
            found.append(None)
            continue
        # Half a character decodes to this sign, and the token that completes it to all of it.
        inside = piece.endswith(_HALF) and not text.startswith(piece, place)
        if inside:
            # What else such a token spells comes again with the token that completes it.
            found.append(None)
            continue
        if not text.startswith(piece, place):
            break
        place += len(piece)
        found.append(place)
    return found + [None] * (len(ids) - len(found))
