"""What servers reply, and which text it means: the table of docs/guides.md row by row."""

from __future__ import annotations

import json
from typing import Any

import pytest
from http_toys import requests
from reply_toys import asked_once, chat, error, guide_of

from faulty_server import FaultyServer, serving
from rlgf.errors import UserError
from rlgf.guides import Request


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("great", "great"),
        ([{"type": "text", "text": "gre"}, {"type": "text", "text": "at"}], "great"),
        (
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "great"},
            ],
            "great",
        ),
        ([{"type": "reasoning", "text": "hm"}, {"type": "output_text", "text": "great"}], "great"),
        (["gre", "at"], "great"),
        ("<think>He wants praise.\n\nSo:</think>\n\ngreat", "great"),
        ("\n<think></think>great", "great"),
        ("<reasoning>hm</reasoning> great", "great"),
        ("great <think> of it", "great <think> of it"),
        ("great <think>hm</think> of it", "great <think>hm</think> of it"),
        ("He wants praise.</think>\n\ngreat", "great"),
        ("<think>one</think>\n<think>two</think>great", "great"),
        ({"type": "text", "text": "great"}, "great"),
    ],
)
def test_the_answer_is_the_text_without_the_thinking(content: Any, text: str) -> None:
    completion, writer, asked = asked_once(chat(content, reasoning_content="He wants praise."))
    assert (completion.text, completion.finished, asked) == (text, True, 1)
    assert writer.usage.thought_only == 0


@pytest.mark.parametrize(
    "reply",
    [
        chat(None, "length"),
        chat("", "length"),
        chat(None, "MAX_TOKENS"),
        chat("", "length", reasoning_content="Let me think"),
        chat("<think>Let me think", "length"),
        chat([{"type": "thinking", "thinking": "hm"}], "length", reasoning_content="hm"),
        chat(None, "length", usage={"prompt_tokens": 11, "completion_tokens": 0, "total_tokens": 411}),
    ],
)
def test_a_model_that_only_thinks_is_one_sentence_and_is_asked_once(reply: dict[str, Any]) -> None:
    with serving(FaultyServer(always=(200, reply))) as server:
        with pytest.raises(UserError, match=r"spent all of its tokens on thinking.*'guide.token_ratio'"):
            guide_of(server, style="chat").write(requests(1))
        assert sum(server.seen.values()) == 1


def test_a_server_that_takes_answers_for_thinking_is_not_told_of_a_limit() -> None:
    reply = chat(None, "stop", reasoning="The capital is Paris.")
    with (
        serving(FaultyServer(always=(200, reply))) as server,
        pytest.raises(UserError, match=r"ends its texts itself .*'guide.extra_body.*reasoning parser"),
    ):
        guide_of(server, style="chat").write(requests(1))


def test_a_text_without_signs_is_not_taken_for_thinking() -> None:
    """Such as one of special tokens alone, at the limit."""
    reply = {"choices": [{"text": "", "finish_reason": "length"}], "usage": {"completion_tokens": 6}}
    completion, writer, asked = asked_once(reply, "completions")
    assert (completion.text, writer.usage.thought_only, writer.usage.empty, asked) == ("", 0, 1, 1)


def test_a_model_that_thinks_too_long_now_and_then_gives_an_empty_text() -> None:
    with serving(FaultyServer(replies=["<think>Let me", "good"])) as server:
        writer = guide_of(server, style="chat", concurrency=1)
        texts = sorted(completion.text for completion in writer.write(requests(2)))
        assert texts == ["", "good"]
        assert (writer.usage.thought_only, writer.usage.empty) == (1, 1)
        server.replies = ["<think>Let me"]
        assert writer.write(requests(1, start=2))[0].text == "", "it has answered before"
        accounts = writer.accounts
        resumed = guide_of(server, style="chat")
        resumed.restore(accounts)
        assert resumed.write(requests(1, start=3))[0].text == ""
        with pytest.raises(UserError, match="gives its thinking alone"):
            writer.write(requests(8, start=4))
        assert writer.usage.thought_only == 10


@pytest.mark.parametrize(
    "reply",
    [
        chat("Sorry", "content_filter"),
        *(chat(None, reason) for reason in ("content_filter: RECITATION", "SAFETY", "Sensitive", "refusal")),
        *(chat("", reason) for reason in ("PROHIBITED_CONTENT", "blocklist", "SPII", "recitation")),
        chat(None, "stop", refusal="I cannot"),
        chat([{"type": "refusal", "refusal": "I cannot"}]),
        chat(None, "tool_calls", tool_calls=[{"id": "1", "type": "function", "function": {"name": "f"}}]),
    ],
)
def test_a_refusal_is_an_empty_text_and_counted(reply: dict[str, Any]) -> None:
    completion, writer, asked = asked_once(reply)
    assert (completion.text, writer.usage.refused, asked) == ("", 1, 1)


@pytest.mark.parametrize(
    ("said", "read", "mended"),
    [
        ("a \ud83d b", "a \ufffd b", 1),
        ("a \ud83d\ude00", "a \U0001f600", 0),
        ("\udc00", "\ufffd", 1),
        (["a \ud83d", "\ude00"], "a \U0001f600", 1),
        ("a \0 b", "a \0 b", 0),
    ],
)
def test_half_characters_are_replaced_and_counted(said: Any, read: str, mended: int) -> None:
    completion, writer, _ = asked_once(chat(said))
    assert completion.text == read
    assert writer.usage.mended == mended


def test_a_prompt_with_half_a_character_is_sent_with_a_sign_in_its_place() -> None:
    with serving(FaultyServer()) as server:
        guide_of(server).write([Request("smile \ud83d", 4, 0)])
        assert server.bodies[0]["prompt"] == "smile \ufffd"


FLAGGED = "Your chosen model requires moderation and your input was flagged"


@pytest.mark.parametrize(
    ("status", "reply"),
    [
        (400, error("The response was filtered", code="content_filter", param="prompt")),
        (400, error("Input data may contain inappropriate content.", code="data_inspection_failed")),
        (403, error(FLAGGED, code=403)),
        (200, error(FLAGGED, code=403)),
        (200, error("Filtered.", code="content_filter")),
        (400, error("Invalid prompt: it may violate our usage policy.", code="invalid_prompt")),
        (400, error("Content Exists Risk", code="invalid_request_error")),
        (200, error("Content Exists Risk", code=400)),
        (400, error("AzureException - triggering Azure OpenAI's content management policy", code="400")),
        (403, {"code": "no permission", "error": "Content violates usage guidelines. SAFETY_CHECK_TYPE_BIO"}),
        (403, error("Provider returned error", metadata={"reasons": ["flagged"]})),
        (200, error("Provider returned error", code=403, metadata={"reasons": ["flagged"]})),
    ],
)
def test_a_prompt_that_the_server_filters_is_a_refusal(status: int, reply: dict[str, Any]) -> None:
    with serving(FaultyServer(always=(status, reply))) as server:
        writer = guide_of(server, style="chat")
        assert writer.write(requests(1))[0].text == ""
        assert (writer.usage.refused, sum(server.seen.values())) == (1, 1)


@pytest.mark.parametrize("content", [None, "", []])
def test_an_answer_that_ends_at_once_is_an_empty_text(content: Any) -> None:
    completion, writer, asked = asked_once(chat(content))
    assert (completion.text, completion.finished, asked) == ("", True, 1)
    assert writer.usage.empty == 1


def test_a_reply_may_begin_with_a_mark_of_its_byte_order() -> None:
    assert asked_once("\ufeff" + json.dumps(chat("good")))[0].text.strip() == "good"


def test_thinking_in_a_completion_is_text_as_any_other() -> None:
    reply = {"choices": [{"text": "<think>hm</think>", "finish_reason": "stop"}]}
    assert asked_once(reply, style="completions")[0].text == "<think>hm</think>"


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": None, "completion_tokens": None},
        "none",
        {"prompt_tokens": "many", "completion_tokens": -1},
        {"prompt_tokens": float("nan"), "completion_tokens": float("inf")},
    ],
)
def test_a_server_that_does_not_count_tokens_is_booked_at_the_most(usage: Any) -> None:
    _, writer, _ = asked_once(chat("good", usage=usage))
    assert writer.usage.completion_tokens == 6


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 331}, (12, 319)),
        ({"prompt_tokens": 12, "total_tokens": 331}, (12, 319)),
        ({"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 14}, (12, 2)),
        ({"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 5}, (12, 2)),
        ({"completion_tokens": 2, "total_tokens": 14}, (0, 2)),
    ],
)
def test_what_a_model_thinks_is_booked_where_only_the_total_counts_it(
    usage: dict[str, int], tokens: tuple[int, int]
) -> None:
    _, writer, _ = asked_once(chat("good", usage=usage))
    assert (writer.usage.prompt_tokens, writer.usage.completion_tokens) == tokens


@pytest.mark.parametrize("reason", ["stop", "eos", "eos_token", "end_turn", "stop_sequence"])
def test_servers_say_in_their_own_words_that_a_text_has_ended(reason: str) -> None:
    assert asked_once(chat("good", reason))[0].finished


def test_a_text_without_a_reason_has_not_ended() -> None:
    assert not asked_once(chat("good", None))[0].finished
