"""Texts become tokens and tokens become texts here, and nowhere else."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from rlgf.errors import UserError

_TAIL = 8
_HALF = "\ufffd"
"""What a tokenizer decodes a part of a character to."""
_LONGEST_CHARACTER = 4
"""Bytes, each of which may be a token."""
_ANCHORS = ("\n", ".", "0")


class Codec:
    """A tokenizer and its habits.

    Tokenizers differ in what they put around a text (a beginning-of-text token, separators), in whether they
    put a space before its first word, which decoding takes off again, and in how they cut characters.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as it stands: nothing is put around it, and the name of a special token is text."""
        named = self._special.search(text) is not None
        return self._ids(text, split_special_tokens=True) if named else self._ids(text)

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a prompt, in which special tokens may be written out, as a chat template does.

        What the tokenizer itself puts around a text is left out, also where the text brings it.
        """
        return self.inner(self._ids(text))

    def inner(self, ids: Sequence[int]) -> list[int]:
        """A text's own tokens, without what the tokenizer puts around them where it is there."""
        before, after = self.around
        first = len(before) if list(ids[: len(before)]) == before else 0
        last = len(ids) - (len(after) if list(ids[len(ids) - len(after) :]) == after else 0)
        return list(ids[first : max(first, last)])

    def encode_both(self, prompt: str, text: str, after: str = "") -> list[int]:
        """Token ids of a prompt and the text after it, tokenized as one, without the tokens around them.

        Args:
            after: what a chat template writes after the text; special tokens may be written out in it, as in the prompt.
        """
        whole = prompt + text
        if any(name.end() > len(prompt) for name in self._special.finditer(whole)):
            ids = self.encode_prompt(prompt)
            ids = ids + self.continuation(text, ids)[0]
            return ids + self.continuation(after, ids, prompt=True)[0] if after else ids
        return self.encode_prompt(whole + after)

    def surround(self, ids: Sequence[int], limit: int, *, ends: bool) -> list[int]:
        """At most ``limit`` tokens: the last of ``ids``, in between what the tokenizer puts around a text.

        Args:
            ends: whether the text ends here; what goes on lacks what the tokenizer puts after a text.
        """
        before, after = self.around
        kept = [*before, *ids[len(ids) - min(self.room(limit, ends=ends), len(ids)) :]]
        return [*kept, *after][:limit] if ends else kept[:limit]

    def room(self, limit: int, *, ends: bool) -> int:
        """How many of ``limit`` tokens are the text's own; see `surround`."""
        before, after = self.around
        return max(limit - len(before) - len(after) * ends, 0)

    @cached_property
    def around(self) -> tuple[list[int], list[int]]:
        """The special tokens that the tokenizer puts before and after a text.

        Raises:
            UserError: it makes no tokens of any text.
        """
        # A tokenizer of DNA or of music may have no "a"; then one of its own tokens is the text.
        texts = itertools.chain("a", (self._text([i]) for i in sorted(self.tokenizer.get_vocab().values())))
        known = next((text for text in texts if self._ids(text)), None)
        if known is None:
            raise UserError(
                f"the tokenizer of '{self.tokenizer.name_or_path}' makes no tokens of any text, not even of its own tokens: "
                "its files are damaged or do not belong together."
            )
        text = self._ids(known)
        whole: list[int] = self.tokenizer(known, verbose=False)["input_ids"]
        first = next(i for i in range(len(whole) + 1) if whole[i : i + len(text)] == text)
        return whole[:first], whole[first + len(text) :]

    def decode(self, ids: Sequence[int], before: Sequence[int] = ()) -> str:
        """The text that token ids add to the text of those before them, without special tokens.

        The spaces are those of the tokens: of tokens alone, many tokenizers drop the first one. A character
        that begins in ``before`` belongs to the ids that complete it.
        """
        tail = self._tail(before)
        whole, head = self._text([*tail, *ids]), self._text(tail)
        for _ in range(_LONGEST_CHARACTER):
            if whole.startswith(head):
                return whole[len(head) :]
            if not head.endswith(_HALF):
                break
            # The character's first bytes decode to something else once the rest is there.
            tail = tail[:-1]
            head = self._text(tail)
        return self._text(ids)

    def continuation(
        self, text: str, before: Sequence[int], *, prompt: bool = False
    ) -> tuple[list[int], bool]:
        """Tokens that say ``text`` after ``before``, and whether what they say differs from it.

        Some tokenizers put a space before the first word of whatever they are given. Where that happens
        the text is tokenized after another one, whose tokens are then taken off.

        Args:
            prompt: whether special tokens may be written out in it; see `encode_prompt`.
        """
        encode = self.encode_prompt if prompt else self.encode
        tail = self._tail(before)
        wanted = self._text(tail) + text
        plain = encode(text)
        if self._text([*tail, *plain]) == wanted:
            return plain, False
        for anchor in _ANCHORS:
            first, both = self.encode(anchor), encode(anchor + text)
            ids = both[len(first) :]
            if both[: len(first)] == first and self._text([*tail, *ids]) == wanted:
                return ids, False
        return plain, True

    def until_end(self, text: str, ends: Iterable[int]) -> str:
        """A text up to the first of these special tokens that is written out in it."""
        names = {self.tokenizer.convert_ids_to_tokens(end) for end in ends if end in self._special_ids}
        found = (name.start() for name in self._special.finditer(text) if name.group() in names)
        return text[: next(found, len(text))]

    def _ids(self, text: str, **options: bool) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False, **options)["input_ids"]
        return ids

    def _text(self, ids: Sequence[int]) -> str:
        text = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def _tail(self, before: Sequence[int]) -> list[int]:
        """The end of what stands before, which says as much as all of it and is decoded faster."""
        size = _TAIL
        while True:
            tail: list[int] = []
            for token in reversed(before):
                if len(tail) == size:
                    break
                if token not in self._special_ids:
                    tail.insert(0, token)
            # A tail may begin within a character, which is then no longer one.
            if len(tail) < size or not self._text(tail).startswith(_HALF):
                return tail
            size *= 2

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        added = self.tokenizer.added_tokens_decoder.items()
        return frozenset([*self.tokenizer.all_special_ids, *(i for i, token in added if token.special)])

    @cached_property
    def _special(self) -> re.Pattern[str]:
        added = self.tokenizer.added_tokens_decoder.values()
        names = {*self.tokenizer.all_special_tokens, *(token.content for token in added if token.special)} - {
            ""
        }
        # The longest first: one name may begin with another.
        return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or r"(?!)")


_CONTEXT = 64
"""How many tokens before one are enough to decode it."""


def token_ends(codec: Codec, ids: Sequence[int], before: Sequence[int], text: str) -> list[int | None]:
    """Where tokens end in their text, in characters.

    A character that several tokens spell ends with the last of them. Tokens that add no text, as special ones do, end
    where the one before them does.

    Args:
        before: the tokens that they follow.
        text: what they spell, or the beginning of it.

    Returns:
        None for a token that ends inside a character or comes after the end of the text.
    """
    found: list[int | None] = []
    place, known, inside = 0, list(before[-_CONTEXT:]), False
    for token in ids:
        piece = codec.decode([token], known[-_CONTEXT:])
        known.append(token)
        # Half a character decodes to this sign, and the token that completes it to all of it. What else such a token
        # spells comes again with the one that completes it.
        half = piece.endswith(_HALF) and not text.startswith(piece, place)
        inside = half or (inside and not piece)
        if inside:
            found.append(None)
            continue
        if not text.startswith(piece, place):
            break
        place += len(piece)
        found.append(place)
    return found + [None] * (len(ids) - len(found))
