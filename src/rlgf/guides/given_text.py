"""A text that a model is to score, in the tokens that the model would read it in."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlgf.models.encoder_decoder import is_encoder_decoder
from rlgf.models.language_model import LanguageModel
from rlgf.models.text import Codec, token_ends
from rlgf.objectives.alignment import Piece, as_pieces


@dataclass(frozen=True)
class GivenText:
    """The tokens of a text. Where one token holds the end of the prompt and the beginning of the text, it is left out."""

    ids: list[int]
    ends: list[int | None]
    """Where each of them ends, in characters of the text; see `token_ends`."""
    begin: int = 0
    """Where the first of them begins."""
    closed: bool = False
    """Whether the last of them is the end of the text."""

    @staticmethod
    def of(codec: Codec, ids: Sequence[int], before: Sequence[int], text: str) -> GivenText:
        """The text's own tokens."""
        return GivenText(list(ids), token_ends(codec, ids, before, text))

    def with_end(self, length: int, end_id: int) -> GivenText:
        """The same with the token that ends the text, of that many characters."""
        return replace(self, ids=[*self.ids, end_id], ends=[*self.ends, length], closed=True)

    def cut(self, length: int) -> GivenText:
        """The first tokens alone."""
        if length >= len(self.ids):
            return self
        return GivenText(self.ids[:length], self.ends[:length], self.begin)

    def pieces(self, logprobs: Sequence[float]) -> list[Piece]:
        """The pieces of the text, with the log-probabilities of its tokens."""
        if not self.closed:
            return as_pieces(self.ends, logprobs, self.begin)
        place = self.ends[-1] or 0
        found = as_pieces(self.ends[:-1], logprobs[:-1], self.begin)
        return [*found, Piece(place, place, logprobs[-1])]


def given_text(model: LanguageModel, prompt: str, text: str) -> tuple[list[int], GivenText]:
    """The prompt's tokens and those of a text after it.

    A decoder reads both as one text, as in its training. A token may then begin in the prompt and end in the text; it
    counts as the prompt's. An encoder-decoder model reads the two apart.
    """
    codec = model.codec
    alone = codec.encode_prompt(prompt)
    if is_encoder_decoder(model.model):
        return alone, GivenText.of(codec, codec.encode(text), [], text)
    both = codec.encode_both(prompt, text)
    pairs = zip(alone, both, strict=False)
    same = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
    tail = codec.decode(both[same:], both[:same])
    if not tail.endswith(text):
        # The tokenizer spells another text, so there is no telling where the prompt ends.
        ids, _ = codec.continuation(text, alone)
        return alone, GivenText.of(codec, ids, alone, text)
    before = len(tail) - len(text)
    ends = token_ends(codec, both[same:], both[:same], tail)
    first, begin = 0, 0
    for number, end in enumerate(ends):
        if begin >= before:
            break
        if end is not None:
            first, begin = number + 1, end
    kept = [None if end is None else end - before for end in ends[first:]]
    return both[: same + first], GivenText(both[same + first :], kept, begin - before)
