"""What a chat API is sent of a text to continue."""

from __future__ import annotations

import time

import pytest
from http_toys import guide

from chat_toys import ASKED, BEGUN, SYSTEM, USER, asked_over_http
from faulty_server import FaultyServer, answer_to, serving
from rlgf.guides import HTTPGuideConfig, Request
from rlgf.guides.messages import without_echo
from rlgf.types import Message


@pytest.mark.parametrize(
    ("prefix", "reply", "text"),
    [
        ("The film was", "great.", " great."),
        ("The film was", " great.", " great."),
        ("The film was", "The film was great.", " great."),
        ("I saw it. The film was bad, the cast was", "The film was bad, the cast was good", " good"),
        ("I saw it and", "it and more", " it and more"),
        ("Stop", "Stop here", " here"),
        ("It ended. ", "Well", "Well"),
        ("The", "Then he left", " Then he left"),
        ("\u6211\u559c\u6b22", "\u4f60", "\u4f60"),
        ("\u6211\u559c\u6b22", "\u6211\u559c\u6b22\u4f60", "\u4f60"),
        ("\u304b\u306a", "\u30ab\u30ca", "\u30ab\u30ca"),
        ("\u0e44\u0e17\u0e22", "\u0e01", "\u0e01"),
        ("\u1781", "\u1781\u17d2", "\u17d2"),
        ("\ud55c\uad6d", "\uc0ac\ub78c", " \uc0ac\ub78c"),
        ("\u043e\u043d", "\u0436\u0438\u043b", " \u0436\u0438\u043b"),
        ("I", "It works", " It works"),
        ("1", "12 is the answer", " 12 is the answer"),
        ("I", "I went", " went"),
        ("(", "(see below)", "(see below)"),
        ("...", "... and so on", "... and so on"),
        ("Seen at last: the long film was", "the long film wasted time", " the long film wasted time"),
        ("|---|---|---|---|---|", "|---|---|---|---|---|\n| a |", "\n| a |"),
        ("wonder", "!", "!"),
    ],
)
def test_a_chat_model_continues_the_text(prefix: str, reply: str, text: str) -> None:
    with serving(FaultyServer(replies=[reply])) as server:
        assert guide(server, style="chat").write([Request(prefix, 9, 0)])[0].text == text
        (message,) = server.bodies[0]["messages"]
        assert message["content"].endswith(prefix)


def test_an_echo_of_a_long_text_is_found_at_once() -> None:
    config = HTTPGuideConfig(url="http://h/v1", model="m", style="chat")
    long = "It was " * 100_000 + "good"
    started = time.thread_time()
    assert without_echo(config, Request(long, 9, 0), long[-5_000:] + " fun") == " fun"
    assert without_echo(config, Request(long, 9, 0), "It was not") == " It was not"
    assert time.thread_time() - started < 2


def test_the_assistants_message_is_continued_where_the_server_can(server: FaultyServer) -> None:
    writer = guide(server, style="chat", continue_message=True, template="Summarize: {text}")
    writer.write([Request("a postshort", 4, 0, prompt_length=6), Request("a post", 4, 0, prompt_length=6)])
    by_length = sorted((body["messages"] for body in server.bodies), key=len)
    asked = {"role": "user", "content": "Summarize: a post"}
    assert by_length == [[asked], [asked, {"role": "assistant", "content": "short"}]]


@pytest.mark.parametrize(
    ("written", "reply", "sent", "text"),
    [
        ("The ans", "wer is 5", "The ans", "wer is 5"),
        ("The film was", "The film was it", "The film was", "The film was it"),
        ("It ended.  ", "\n Well", "It ended.", "Well"),
        ("It ended. ", "  Well", "It ended.", " Well"),
        ("It ended. ", "Well", "It ended.", "Well"),
        (" \n", "Well", None, "Well"),
    ],
)
def test_what_continues_a_message_stays_as_it_is(
    written: str, reply: str, sent: str | None, text: str
) -> None:
    with serving(FaultyServer(replies=[reply])) as server:
        writer = guide(server, style="chat", continue_message=True)
        assert writer.write([Request("Why? " + written, 9, 0, prompt_length=5)])[0].text == text
        last = server.bodies[0]["messages"][-1]
    assert last["content"] == sent if sent else last["role"] == "user"


def test_a_chat_api_is_sent_the_messages_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    fresh = Request("<user>the film?<assistant>", 4, 0, messages=(SYSTEM, USER))
    assert BEGUN.written == " a jo"
    with serving(FaultyServer()) as server:
        body, _ = asked_over_http(server, fresh, style="chat")
        assert body["messages"] == ASKED
        body, _ = asked_over_http(server, BEGUN, style="chat", continue_message=True)
        assert body["messages"] == [*ASKED, {"role": "assistant", "content": " a jo"}]
        body, text = asked_over_http(server, BEGUN, style="chat", template="Go on: {text}")
        begun = [{"role": "assistant", "content": " a jo"}, {"role": "user", "content": "Go on:  a jo"}]
        assert body["messages"] == [*ASKED, *begun]
        assert text.startswith(" "), "two words that meet are parted, as in a plain text"
        body, _ = asked_over_http(server, fresh, style="chat", system="In English.")
        assert body["messages"] == [{"role": "system", "content": "In English.\n\nbe kind"}, ASKED[1]]
        prefilled = Request(
            "<user>the film?<assistant>a j", 4, 0, messages=(USER, Message("assistant", "a j"))
        )
        body, _ = asked_over_http(server, prefilled, style="chat", continue_message=True)
        assert body["messages"] == [ASKED[1], {"role": "assistant", "content": "a j"}]
        body, text = asked_over_http(server, prefilled, style="chat")
        assert body["messages"][:2] == [ASKED[1], {"role": "assistant", "content": "a j"}]
        assert text.startswith(" "), "parted from the beginning that the data gives"
        body, text = asked_over_http(server, BEGUN, style="completions")
        assert body["prompt"] == BEGUN.prefix
        assert text == answer_to(BEGUN.prefix, 0, "abcd", 6)
