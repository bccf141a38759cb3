"""Where tokens end in the text that they spell, for every kind of tokenizer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from conftest import SENTENCES
from rlgf.models.text import Codec, token_ends
from tokenizer_kinds import SAYS_EVERYTHING, byte_bpe

CODECS = {kind.__name__: Codec(kind()) for kind in SAYS_EVERYTHING}
TEXTS = st.one_of(st.text("aé日🙂 \n.T", max_size=12), st.sampled_from(SENTENCES))


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())
@given(text=TEXTS)
def test_a_token_ends_where_the_text_of_all_before_it_does(codec: Codec, text: str) -> None:
    before = codec.encode("The film")
    ids, _ = codec.continuation(text, before)
    whole = codec.decode(ids, before)
    for end, found in enumerate(token_ends(codec, ids, before, whole), 1):
        said = codec.decode(ids[:end], before)
        expected = None if said.endswith("\ufffd") else len(said)
        assert found == expected, (ids, end)


def test_a_token_of_a_space_and_a_part_of_a_character_ends_within_it() -> None:
    names = ["ĠæĹ", "¥", "a", "<end>"]
    pieces = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, []))
    pieces.decoder = decoders.ByteLevel()
    codec = Codec(PreTrainedTokenizerFast(tokenizer_object=pieces, eos_token="<end>"))
    assert codec.decode([2, 0, 1, 2]) == "a 日a"
    assert token_ends(codec, [2, 0, 1, 2], [], "a 日a") == [1, None, 3, 4]


def test_a_special_token_adds_no_text_and_a_stray_byte_is_a_sign() -> None:
    codec = Codec(byte_bpe())
    word, half, end = codec.encode("a")[0], codec.encode("日")[0], codec.tokenizer.eos_token_id
    assert token_ends(codec, [word, end, word, end], [], "aa") == [1, 1, 2, 2]
    # Half a character, after which another text goes on.
    assert token_ends(codec, [word, half, word], [], codec.decode([word, half, word])) == [1, 2, 3]
    assert token_ends(codec, [word, half], [], "a") == [1, None]
    assert token_ends(codec, [word, word, word], [], "aab") == [1, 2, None]
