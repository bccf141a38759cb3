"""Prompts are read as the model was trained to read them, and what was written is told as it stands."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from conftest import SENTENCES
from rlgf.models.text import Codec
from rlgf.rollout.writers import prompt_tokens
from rlgf.types import Sample
from tokenizer_kinds import (
    KINDS,
    SAYS_EVERYTHING,
    WITH_BEGINNING,
    byte_bpe,
    encoder_pieces,
    encoder_speaker,
    llama_legacy,
    speaker,
    word_pieces,
)

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


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
def test_a_prompt_is_what_the_tokenizer_makes_of_it(kind: Kind, text: str) -> None:
    model = MODELS[kind.__name__]
    expected = model.tokenizer(text)["input_ids"]
    after = model.codec.around[1]
    assert model.encode_prompt(text, 10_000) == (expected[: len(expected) - len(after)] or [model.end_id])


MODELS = {kind.__name__: speaker(kind()) for kind in KINDS}


@pytest.mark.parametrize("kind", WITH_BEGINNING)
def test_a_beginning_of_text_stands_there_once_and_stays(kind: Kind) -> None:
    model = MODELS[kind.__name__]
    beginning = model.tokenizer.bos_token_id
    model.tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}"
    rendered = model.tokenizer.apply_chat_template([{"role": "user", "content": "The film"}], tokenize=False)
    assert rendered == "<s>[The film]"
    assert model.encode_prompt(rendered, 99).count(beginning) == 1
    assert (
        model.encode_prompt(rendered, 99) == model.tokenizer(rendered, add_special_tokens=False)["input_ids"]
    )
    for text in (SENTENCES[0], "<s>" + SENTENCES[0]):
        whole = model.encode_prompt(text, 999)
        assert model.encode_prompt(text, 6) == [beginning, *whole[-5:]]
        assert model.encode_prompt(text, 1) == [beginning]
    assert model.encode_prompt("", 9) == [beginning]
    cut = prompt_tokens(model, Sample(SENTENCES[0] + " So:", cue=" So:"), 12)
    assert cut[0] == beginning
    assert len(cut) == 12
    assert model.decode(cut).startswith("The f")
    assert model.decode(cut).endswith(" So:")


def test_an_encoder_reads_an_end_once_and_a_causal_model_none() -> None:
    causal, encoder = speaker(encoder_pieces()), encoder_speaker(encoder_pieces())
    ids = causal.encode("the film")
    assert causal.encode_prompt("the film", 99) == ids
    for text in ("the film", "the film<end>"):
        assert encoder.encode_prompt(text, 99) == [*ids, encoder.end_id]
    assert encoder.encode_prompt("the film", 3) == [*ids[-2:], encoder.end_id]


def test_a_decoders_text_begins_anew() -> None:
    """What stands in the encoder is not what a response goes on from."""
    encoder = encoder_speaker(encoder_pieces())
    prompt, ids = encoder.encode_prompt("the film", 99), encoder.encode("was a joy")
    assert encoder.decode(ids, encoder.context(prompt)) == "was a joy"
    assert (
        encoder.decode(ids[3:], encoder.context(prompt, ids[:3]))
        == encoder.decode(ids)[-len(encoder.decode(ids[3:], ids[:3])) :]
    )
    found, altered = encoder.continuation(" was a joy", encoder.context(prompt))
    assert (found, altered) == (ids, False)


def test_special_tokens_may_be_written_out_in_prompts_alone() -> None:
    for kind in (word_pieces, byte_bpe, llama_legacy):
        model = MODELS[kind.__name__]
        name = model.tokenizer.eos_token
        assert model.end_id in model.encode_prompt(f"a{name}b", 99)
        assert model.end_id not in model.encode(f"a{name}b")
        assert model.until_end(f"one{name}two{name}") == "one"
        assert model.until_end("one two") == "one two"
