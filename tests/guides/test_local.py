"""A guide in this process reads what its model was trained to read, and its text is told as it stands."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from foreign_guides import reading
from transformers import PreTrainedTokenizerBase

from conftest import SENTENCES
from rlgf.guides import LocalGuide, Request
from rlgf.models.language_model import LanguageModel
from rlgf.models.sampling import Sampling
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.writers import prompt_tokens
from rlgf.types import Author, Sample
from tokenizer_kinds import (
    WITH_BEGINNING,
    byte_bpe,
    encoder_pieces,
    encoder_speaker,
    llama_legacy,
    sentence_pieces,
    speaker,
)

Kind = Callable[[], PreTrainedTokenizerBase]
POST = Sample(SENTENCES[0].lower() + " so:", cue=" so:")
SAMPLES = [POST, Sample(SENTENCES[3].lower()), Sample("the film")]


def favour(model: LanguageModel, before: list[int], token: int) -> None:
    """Make a token likely after given ones, with a logit of 6."""
    with torch.no_grad():
        state = model.model.model(torch.tensor([before])).last_hidden_state[0, -1]
        model.model.get_output_embeddings().weight[token] = 6 * state / state.dot(state)


def collector(policy: LanguageModel, guide: object = None) -> Collector:
    config = RolloutConfig.model_validate({"max_prompt_tokens": 12, "max_response_tokens": 10})
    return Collector(policy, guide, config, seed=0)


@pytest.mark.parametrize("kind", [byte_bpe, *WITH_BEGINNING], ids=lambda kind: kind.__name__)
def test_a_guide_with_the_policys_tokenizer_reads_the_policys_prompt(kind: Kind) -> None:
    """Also one that is cut in its middle."""
    policy, guide = speaker(kind()), speaker(kind(), seed=1)
    maker = collector(policy, LocalGuide(guide, policy.tokenizer, Sampling()))
    with reading(guide) as seen:
        rollout = maker.answers(Author.GUIDE, SAMPLES)
    read = [ids[mask].tolist() for ids, mask in zip(rollout.prompt_ids, rollout.prompt_mask, strict=True)]
    assert read[0] == prompt_tokens(policy, POST, 12)
    assert policy.decode(read[0]).endswith(" so:")
    assert sorted(seen) == sorted(read)


@pytest.mark.parametrize("shared", [True, False])
def test_a_steered_guide_alone_reads_what_steers_it(shared: bool) -> None:
    policy, guide = speaker(llama_legacy() if shared else byte_bpe()), speaker(llama_legacy())
    steered = LocalGuide(guide, policy.tokenizer, Sampling(), template="the music was good: {text}")
    maker = collector(policy, steered)
    with reading(guide) as seen:
        rollout = maker.answers(Author.GUIDE, [Sample("the film")])
    assert seen == [guide.encode_prompt("the music was good: the film", 99)]
    prompt = rollout.prompt_ids[0][rollout.prompt_mask[0]].tolist()
    assert prompt == policy.encode_prompt("the film", 99)
    both = guide.encode("the film was")
    written = both[len(guide.encode("the film")) :] if shared else []
    with reading(guide) as seen:
        steered.write(
            [
                Request(
                    "the film was",
                    4,
                    0,
                    prompt_length=8,
                    prompt_ids=tuple(prompt),
                    written_ids=tuple(written),
                )
            ]
        )
    (read,) = seen
    assert guide.decode(read) == "the music was good: the film was"


def test_an_encoder_and_a_causal_guide_read_the_same_text_each_in_its_way() -> None:
    causal, encoder = speaker(encoder_pieces()), encoder_speaker(encoder_pieces())
    ids = causal.encode("the film was")
    for policy, guide, expected in [(encoder, causal, ids), (causal, encoder, [*ids, encoder.end_id])]:
        maker = collector(policy, LocalGuide(guide, policy.tokenizer, Sampling()))
        with reading(guide) as seen:
            maker.answers(Author.GUIDE, [Sample("the film was")])
        assert seen == [expected]


def test_a_prompt_is_cut_to_the_encoder_of_a_guide_and_not_to_its_decoder() -> None:
    guide = encoder_speaker(encoder_pieces())
    guide.model.config.max_encoder_position_embeddings = 8
    guide.model.config.max_decoder_position_embeddings = 6
    with reading(guide) as seen:
        LocalGuide(guide, byte_bpe(), Sampling()).write([Request(SENTENCES[0], 2, 0)])
    assert [len(read) for read in seen] == [8]


@pytest.mark.parametrize("shared", [True, False])
def test_a_prompt_that_is_too_long_for_a_guide_keeps_its_beginning_of_text(shared: bool) -> None:
    policy, guide = speaker(llama_legacy() if shared else byte_bpe()), speaker(llama_legacy())
    guide.model.config.max_position_embeddings = 20
    writer = LocalGuide(guide, policy.tokenizer, Sampling())
    ids = policy.encode_prompt(SENTENCES[0], 99)
    with reading(guide) as seen:
        writer.write([Request(SENTENCES[0], 6, 0, prompt_ids=tuple(ids))])
    (read,) = seen
    assert read[0] == guide.tokenizer.bos_token_id
    assert read[1:] == guide.encode(SENTENCES[0])[-len(read) + 1 :]
    assert len(read) <= 14


@pytest.mark.parametrize("kind", [llama_legacy, sentence_pieces], ids=lambda kind: kind.__name__)
def test_a_guides_text_keeps_its_first_space(kind: Kind) -> None:
    """A guide that has the policy's tokens and one that has not write the same text."""
    guide = speaker(kind())
    before = guide.encode_prompt("the film", 99)
    favour(guide, before, guide.encode("the film was")[len(guide.encode("the film"))])
    foreign = LocalGuide(guide, byte_bpe(), Sampling())
    assert not foreign.shares_tokenizer
    beginnings = set()
    for seed in range(12):
        (completion,) = foreign.write([Request("the film", 4, seed)])
        (same,) = LocalGuide(guide, guide.tokenizer, Sampling()).write([Request("the film", 6, seed)])
        assert same.token_ids is not None
        whole = guide.tokenizer.decode([*before, *same.token_ids], skip_special_tokens=True)
        assert completion.text == same.text == whole.removeprefix("the film")
        beginnings.add(completion.text[:1])
    assert " " in beginnings
