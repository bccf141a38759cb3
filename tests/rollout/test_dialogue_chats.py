"""Dialogues in chats: turns and replies stand as the template has them."""

from __future__ import annotations

import itertools

import pytest
from dialogues import CHAT, Says, collector, runs, sure

from rlgf.algorithms.catalog import PPO, PPO_PLUS_PLUS
from rlgf.errors import UserError
from rlgf.guides import LocalGuide, Request
from rlgf.models.language_model import LanguageModel
from rlgf.models.sampling import Sampling
from rlgf.types import Author, Message, Sample
from toys import FavouringGuide, letter_gpt


@pytest.fixture
def policy() -> LanguageModel:
    policy = letter_gpt(context=64)
    policy.tokenizer.chat_template = CHAT
    return policy


@pytest.fixture
def samples() -> list[Sample]:
    asked = (Message("user", "dc"),)
    return [Sample("adc<end>b", columns={}, messages=asked)] * 12


def test_the_tokens_are_those_of_the_template(policy: LanguageModel, samples: list[Sample]) -> None:
    rollout = collector(policy, lambda turns, **known: "dd").collect(samples, PPO)
    assert rollout.dialogues is not None
    for row, dialogue in enumerate(rollout.dialogues):
        messages = [{"role": "user", "content": "dc"}] + [
            {"role": message.role, "content": message.content} for message in dialogue
        ]
        text = policy.tokenizer.apply_chat_template(messages, tokenize=False)
        ids = policy.tokenizer(text)["input_ids"]
        mine = [
            *rollout.prompt_ids[row][rollout.prompt_mask[row]].tolist(),
            *rollout.response_ids[row, : rollout.lengths[row]].tolist(),
        ]
        assert mine == ids[: len(mine)]
        assert len(ids) - len(mine) == (0 if rollout.finished[row] else 1), "all but a missing end"
    assert max(map(len, rollout.dialogues)) > 1
    assert "assistant: " in rollout.texts[0]


@pytest.mark.parametrize("stop", ["", "c"])
def test_a_template_may_write_something_before_the_end_of_an_answer(
    policy: LanguageModel, samples: list[Sample], stop: str
) -> None:
    policy.tokenizer.chat_template = CHAT.replace("{{ m.content }}<end>", "{{ m.content }}c<end>")
    rollout = collector(policy, Says("dd", stop)).collect(samples, PPO)
    replies = []
    for row in range(len(rollout)):
        written = runs(rollout, row)
        for (_, turn), (author, reply) in itertools.pairwise(written):
            if author is Author.ENVIRONMENT:
                # What ended a turn is not written again; what did not is.
                assert reply == ("addc.b" if turn.endswith(".") else "c.addc.b")
                replies.append(turn[-1])
    assert set(replies) == ({".", "c"} if stop else {"."})


def test_a_template_without_the_assistants_messages_is_refused(
    policy: LanguageModel, samples: list[Sample]
) -> None:
    policy.tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}a{% endif %}{% endfor %}"
    )
    with pytest.raises(UserError, match="leaves out what the assistant said before"):
        collector(policy, lambda turns, **known: "dd").collect(samples, PPO)


def test_a_reply_stays_where_only_users_messages_end(policy: LanguageModel, samples: list[Sample]) -> None:
    policy.tokenizer.chat_template = CHAT.replace(
        "<end>{% endfor", "{{ '<end>' if m.role == 'user' else 'cc' }}{% endfor"
    )
    rollout = collector(policy, lambda turns, **known: "dd").collect(samples, PPO)
    replies = [text for row in range(len(rollout)) for _, text in runs(rollout, row)[1::2]]
    assert replies
    assert set(replies) == {"ccadd.b"}


def test_a_guide_with_another_template_reads_each_turn_once(
    policy: LanguageModel, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = letter_gpt(context=64, seed=3)
    other.tokenizer.chat_template = CHAT.replace("'a' if", "'dd' if")
    guide, read = LocalGuide(other, policy.tokenizer, Sampling()), []
    plain = guide._read

    def noted(request: Request, limit: int) -> tuple[list[int], list[int]]:
        read.append((request, plain(request, limit)))
        return read[-1][1]

    monkeypatch.setattr(guide, "_read", noted)
    collector(policy, Says("dd", "b"), guide).collect(samples, sure(PPO_PLUS_PLUS))
    later = [(request, ids) for request, ids in read if len(request.messages) > 1]
    assert later
    for request, (prompt, written) in later:
        messages = [{"role": m.role, "content": m.content} for m in request.messages]
        told = other.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert other.tokenizer.decode(prompt) == told
        assert written == []


def test_the_response_has_its_first_turn_after_a_beginning_in_the_prompt(policy: LanguageModel) -> None:
    asked = (Message("user", "dc"), Message("assistant", "cc"))
    guide = FavouringGuide("b", 1.0)
    samples = [Sample("adc<end>bcc", messages=asked)] * 12
    collector(policy, Says("dd", "b"), guide).collect(samples, sure(PPO_PLUS_PLUS))
    assert {request.response for request in guide.requests} >= {"", "bdd"}


def test_the_whole_response_is_known_to_a_guide() -> None:
    messages = (Message("user", "dc"), Message("assistant", "12 + 7 ="), Message("user", " 19"))
    sample = Sample("", messages=messages[:1])
    request = Request("before 3", 4, seed=0, prompt_length=7, messages=messages, sample=sample)
    assert request.written == "3"
    assert request.response == "12 + 7 = 193"


def test_a_guide_is_told_the_dialogue_as_messages(policy: LanguageModel, samples: list[Sample]) -> None:
    guide = FavouringGuide("b", 1.0)
    collector(policy, Says("dd", "b"), guide).collect(samples, sure(PPO_PLUS_PLUS))
    asked = [request for request in guide.requests if len(request.messages) == 3]
    assert asked
    for request in asked:
        assert [(m.role, m.content) for m in request.messages] == [
            ("user", "dc"),
            ("assistant", "b"),
            ("user", "dd"),
        ]
        assert request.written == ""
        assert request.prompt == "adc<end>bb<end>add<end>b"
