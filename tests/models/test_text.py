"""Texts become tokens and tokens become texts as they stand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from conftest import SENTENCES
from rlgf.errors import UserError
from rlgf.models.text import Codec
from tokenizer_kinds import KINDS, SAYS_EVERYTHING, byte_bpe, llama_legacy

TEXTS = st.one_of(
    st.text(max_size=40), st.sampled_from(SENTENCES), st.text("aé日🙂 \n.▁T", max_size=12).map("The ".__add__)
)
CODECS = {kind.__name__: Codec(kind()) for kind in KINDS}
Kind = Callable[[], PreTrainedTokenizerBase]


def plain(codec: Codec, ids: list[int]) -> str:
    text = codec.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())
@given(text=TEXTS, cut=st.integers(0, 60))
def test_the_parts_of_a_text_are_those_of_the_whole(codec: Codec, text: str, cut: int) -> None:
    """Wherever tokens are parted, a character that is cut in two belongs to the part that completes it."""
    ids = codec.encode(text)
    first, rest = ids[:cut], ids[cut:]
    whole, before = plain(codec, ids), plain(codec, first)
    found = codec.decode(rest, first)
    if before.endswith("\ufffd") and not whole.startswith(before):
        said = [plain(codec, ids[:n]) for n in range(cut)]
        before = max((x for x in said if whole.startswith(x) and not x.endswith("\ufffd")), key=len)
    assume(whole.startswith(before))  # what WordPiece puts between signs it may take back later
    assert before + found == whole


@pytest.mark.parametrize("codec", [CODECS[kind.__name__] for kind in SAYS_EVERYTHING])
@given(before=TEXTS, text=TEXTS)
def test_what_is_said_behind_a_text_is_read_there(codec: Codec, before: str, text: str) -> None:
    assume("▁" not in text)  # which is how most of them write a space
    first = codec.encode_prompt("The film" + before)
    ids, altered = codec.continuation(text, first)
    assert not altered
    assert codec.decode(ids, first) == text


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind is not byte_bpe], ids=lambda kind: kind.__name__
)
def test_a_response_keeps_its_first_space(kind: Kind) -> None:
    codec = Codec(kind())
    before, ids = codec.encode_prompt("the film"), codec.encode("the film was a joy")
    rest = ids[len(before) :]
    assert ids[: len(before)] == before
    assert codec.decode(rest, before) == " was a joy"
    assert codec.decode(rest, [codec.around[0][0], *before] if codec.around[0] else before) == " was a joy"


def test_rare_characters_before_a_response_do_not_spoil_it() -> None:
    """Of a run of bytes that begins within a character none can be read."""
    for kind in (byte_bpe, llama_legacy):
        codec = Codec(kind())
        before, ids = codec.encode_prompt("日本語日本語日本語日"), codec.encode("日本語日本語日本語日本 was")
        assert codec.decode(ids[len(before) :], before) == "本 was"
        half = ids[: len(before) + 1]
        assert codec.decode(ids[len(half) :], half) == "本 was"


def bases(vocabulary: str = "ACGT") -> PreTrainedTokenizerFast:
    """Of DNA: it has no "a", nothing for what it does not know, and a beginning of text."""
    tokenizer = Tokenizer(
        models.BPE({letter: i for i, letter in enumerate(["<s>", "</s>", *vocabulary])}, [])
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def test_a_beginning_of_text_is_found_where_the_alphabet_has_no_a() -> None:
    codec = Codec(bases())
    assert codec.around == ([0], [])
    assert codec.surround(codec.encode_prompt("ACGT"), 9, ends=False) == codec.tokenizer("ACGT")["input_ids"]
    with pytest.raises(UserError, match="makes no tokens of any text"):
        assert not Codec(bases("")).around
