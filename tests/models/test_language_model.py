"""Prompts as a model reads them: a beginning and an end where it has them, and special tokens in prompts alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from conftest import SENTENCES
from resume_script import toy_trainer
from rlgf.models.language_model import LanguageModel, Snapshot
from tokenizer_kinds import (
    KINDS,
    byte_bpe,
    encoder_pieces,
    encoder_speaker,
    llama_legacy,
    speaker,
    word_pieces,
)
from toys import letter_gpt

TEXTS = st.one_of(
    st.text(max_size=40), st.sampled_from(SENTENCES), st.text("aé日🙂 \n.▁T", max_size=12).map("The ".__add__)
)
Kind = Callable[[], PreTrainedTokenizerBase]


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
def test_a_prompt_is_what_the_tokenizer_makes_of_it(kind: Kind, text: str) -> None:
    model = MODELS[kind.__name__]
    expected = model.tokenizer(text)["input_ids"]
    after = model.codec.around[1]
    assert model.encode_prompt(text, 10_000) == (expected[: len(expected) - len(after)] or [model.end_id])


MODELS = {kind.__name__: speaker(kind()) for kind in KINDS}


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


def test_the_end_of_texts_is_known_where_ids_have_holes() -> None:
    vocabulary = models.WordLevel({"a": 0, "b": 1, "c": 2, "<end>": 9}, unk_token="<end>")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(vocabulary), eos_token="<end>")
    assert len(tokenizer) == 4
    model = letter_gpt("abcdefghi").model
    assert LanguageModel(model, tokenizer).end_ids == (9,)


def test_a_snapshot_of_an_adapter_shares_its_base(tmp_path: Path) -> None:
    policy = toy_trainer(tmp_path / "run", policy={"lora": {"r": 2}}).parts.policy
    snapshot = Snapshot(policy)
    trained = {id(parameter) for parameter in policy.trained}
    copied = dict(snapshot.language_model.model.named_parameters())
    for name, parameter in policy.model.named_parameters():
        assert (copied[name] is parameter) == (id(parameter) not in trained)
    with torch.no_grad():
        for parameter in policy.trained:
            parameter += 1
    assert all(not torch.equal(copied[n], p) for n, p in policy.model.named_parameters() if id(p) in trained)
    snapshot.update()
    assert all(torch.equal(copied[n], p) for n, p in policy.model.named_parameters())


def test_a_snapshot_leaves_the_policy_as_it_is() -> None:
    policy = letter_gpt()
    snapshot = Snapshot(policy)
    assert all(parameter.requires_grad for parameter in policy.trained)
    assert not any(parameter.requires_grad for parameter in snapshot.language_model.model.parameters())
    assert (
        snapshot.language_model.model.lm_head.weight is snapshot.language_model.model.transformer.wte.weight
    )
