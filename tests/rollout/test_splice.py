"""A guide's text becomes tokens of the policy: given ids stay, and what does not survive is counted."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from conftest import SENTENCES
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.writers import Draft, GuideWriter, splice
from rlgf.types import Completion, Sample
from tokenizer_kinds import KINDS, SAYS_EVERYTHING, sentence_pieces, word_pieces

TEXTS = st.one_of(st.text(max_size=40), st.sampled_from(SENTENCES))


@pytest.fixture(scope="module", params=KINDS)
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


@pytest.mark.parametrize("tokenizer", [kind() for kind in SAYS_EVERYTHING])
@given(text=TEXTS)
def test_bytes_always_survive(
    tokenizer: PreTrainedTokenizerBase, tiny_gpt2: PreTrainedModel, text: str
) -> None:
    assume("▁" not in text)  # which is how most of them write a space
    policy = LanguageModel(tiny_gpt2, tokenizer)
    assert not splice(policy, Completion(text, finished=False), 10_000, policy.encode("before ")).altered


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
