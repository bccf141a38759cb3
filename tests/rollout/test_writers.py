"""Who writes a part of a response: what each is asked, and how its text becomes tokens of the policy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from foreign_guides import Foreign
from transformers import PreTrainedTokenizerBase

from conftest import SENTENCES
from rlgf.algorithms.catalog import AGGREVATED, PPO, PPO_PLUS_PLUS
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.writers import prompt_tokens
from rlgf.schedules import constant
from rlgf.types import Author, Sample
from tokenizer_kinds import KINDS, SAYS_EVERYTHING, WITH_BEGINNING, sentence_pieces, speaker

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
