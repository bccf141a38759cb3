"""Who writes a part of a response: what each is asked, and how its text becomes tokens of the policy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from foreign_guides import Foreign
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from conftest import SENTENCES
from rlgf.algorithms.catalog import AGGREVATED, PPO, PPO_PLUS_PLUS
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.writers import Draft, GuideWriter, prompt_tokens, splice
from rlgf.schedules import constant
from rlgf.types import Author, Completion, Sample
from tokenizer_kinds import KINDS, SAYS_EVERYTHING, WITH_BEGINNING, sentence_pieces, speaker, word_pieces

Kind = Callable[[], PreTrainedTokenizerBase]
POST = Sample(SENTENCES[0].lower() + " so:", cue=" so:")
SAMPLES = [POST, Sample(SENTENCES[3].lower()), Sample("the film")]


def collector(policy: LanguageModel, guide: object = None) -> Collector:
    config = RolloutConfig.model_validate({"max_prompt_tokens": 12, "max_response_tokens": 10})
    return Collector(policy, guide, config, seed=0)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_rewards_read_and_what_guides_are_asked_stands_behind_the_prompt(kind: Kind) -> None:
    policy, guide = speaker(kind()), Foreign()
    maker = collector(policy, guide)
    always = {"rollin_prob": constant(1.0)}
    rollouts = [
        maker.collect(SAMPLES * 4, row)
        for row in (PPO, PPO_PLUS_PLUS.model_copy(update=always), AGGREVATED.model_copy(update=always))
    ]
    spaces = 0
    for rollout in rollouts:
        for number, text in enumerate(rollout.texts):
            prompt = rollout.prompt_ids[number][rollout.prompt_mask[number]].tolist()
            ids = rollout.response_ids[number][rollout.response_mask[number]].tolist()
            before = policy.tokenizer.decode(prompt, skip_special_tokens=True)
            whole = policy.tokenizer.decode([*prompt, *ids], skip_special_tokens=True)
            if whole.startswith(before):  # WordPiece takes back a space before a sign
                assert before + text == whole
                spaces += text.startswith(" ")
    assert spaces > 3
    asked = [request for request in guide.requests if request.written]
    assert asked
    for request in asked:
        prefix = policy.tokenizer.decode(
            [*policy.encode_prompt(request.prompt, 999), *request.written_ids], skip_special_tokens=True
        )
        if prefix.startswith(request.prompt):
            assert request.prefix == prefix.rstrip("\ufffd")
    assert any(request.written.startswith(" ") for request in asked) or kind in SAYS_EVERYTHING


@pytest.mark.parametrize("kind", [*WITH_BEGINNING, sentence_pieces], ids=lambda kind: kind.__name__)
def test_a_reference_has_one_space_before_it(kind: Kind) -> None:
    policy = speaker(kind())
    rollout = collector(policy).answers(
        Author.REFERENCE, [Sample("the film", (" was",)), Sample("the mus", ("ic",))]
    )
    assert rollout.texts == (" was", "ic")
    assert not rollout.altered.any()


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
