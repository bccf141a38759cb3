"""Chats stay messages until a guide's own template makes a text of them."""

from __future__ import annotations

import pytest
from foreign_guides import Foreign, reading

from chat_toys import QUIET, SYSTEM, TAGS, THINKS, USER, WORDS, chat_sample, collector, with_template
from rlgf.algorithms.catalog import AGGREVATED
from rlgf.guides import LocalGuide, Request
from rlgf.models.sampling import Sampling
from rlgf.types import Author, Message, Sample
from tokenizer_kinds import byte_bpe, llama_legacy, sentence_pieces, speaker


@pytest.mark.parametrize("messages", [(SYSTEM, USER), (USER, Message("assistant", "a j"))])
def test_a_guide_of_another_family_reads_what_its_own_template_makes(messages: tuple[Message, ...]) -> None:
    policy, guide = speaker(with_template(byte_bpe())), speaker(with_template(llama_legacy(), WORDS), seed=1)
    maker = collector(policy, LocalGuide(guide, policy.tokenizer, Sampling()))
    with reading(guide) as seen:
        maker.answers(Author.GUIDE, [chat_sample(policy, *messages)])
    ends = "assistant says a j" if len(messages) == 2 and messages[1].role == "assistant" else None
    told = "user says the film?." + (ends or "assistant says ")
    told = told if messages[0] == USER else "system says be kind." + told
    assert seen == [guide.encode_prompt(told, 999)]
    assert "<user>" not in guide.decode(seen[0])


def test_what_the_policy_has_begun_stands_in_the_assistants_turn_of_a_guide() -> None:
    policy, guide = speaker(with_template(byte_bpe())), speaker(with_template(llama_legacy(), WORDS), seed=1)
    always = AGGREVATED.changed(help={"probability": 1.0})
    asked = Foreign()
    collector(policy, asked).collect([chat_sample(policy)], always)
    (request,) = [one for one in asked.requests if one.written][:1]
    assert request.messages == (SYSTEM, USER)
    with reading(guide) as seen:
        LocalGuide(guide, policy.tokenizer, Sampling()).write([request])
    told = "system says be kind.user says the film?.assistant says "
    assert seen == [guide.encode_prompt(told + request.written, 999)]


def test_a_guide_with_the_policys_tokens_reads_its_own_template_where_that_differs() -> None:
    policy = speaker(with_template(byte_bpe()))
    sample = chat_sample(policy)
    prompt = tuple(policy.encode_prompt(sample.prompt, 20))
    request = Request(
        sample.prompt + " a", 4, 0, prompt, tuple(policy.encode(" a")), len(sample.prompt), sample.messages
    )
    for template, expected in [
        (TAGS, list(prompt)),
        (None, list(prompt)),
        (WORDS, policy.encode("system says be kind.user says the film?.assistant says ")),
    ]:
        guide = speaker(with_template(byte_bpe(), template), seed=1)
        with reading(guide) as seen:
            LocalGuide(guide, policy.tokenizer, Sampling()).write([request])
        assert seen == [[*expected, *policy.encode(" a")]]


def test_a_guides_template_is_told_what_the_row_says() -> None:
    policy = speaker(with_template(byte_bpe(), THINKS))
    sample = Sample("<quiet><user>the film?<assistant>", columns=QUIET, messages=(USER,))
    prompt = policy.encode_prompt(sample.prompt, 999)
    for template, expected in [
        (THINKS, prompt),
        (WORDS, policy.encode("user says the film?.assistant says ")),
    ]:
        guide = speaker(with_template(byte_bpe(), template), seed=1)
        with reading(guide) as seen:
            collector(policy, LocalGuide(guide, policy.tokenizer, Sampling())).answers(Author.GUIDE, [sample])
        assert seen == [expected]


def test_a_guide_without_a_template_reads_the_policys_text_and_says_so() -> None:
    policy, guide = speaker(with_template(byte_bpe())), speaker(sentence_pieces(), seed=1)
    sample = chat_sample(policy)
    maker = collector(policy, LocalGuide(guide, policy.tokenizer, Sampling()))
    with (
        reading(guide) as seen,
        pytest.warns(UserWarning, match="has no chat template, so it reads chats as"),
    ):
        maker.answers(Author.GUIDE, [sample])
    assert seen == [guide.encode_prompt(sample.prompt, 999)]
