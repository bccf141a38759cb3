"""What a chat API is sent of a text to continue."""

from __future__ import annotations

import pytest
from http_toys import guide

from chat_toys import ASKED, BEGUN, SYSTEM, USER, asked_over_http
from faulty_server import FaultyServer, answer_to, serving
from rlgf.guides import Request
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
        ("wonder", "!", "!"),
    ],
)
def test_a_chat_model_continues_the_text(prefix: str, reply: str, text: str) -> None:
    with serving(FaultyServer(replies=[reply])) as server:
        assert guide(server, style="chat").write([Request(prefix, 9, 0)])[0].text == text
        (message,) = server.bodies[0]["messages"]
        assert message["content"].endswith(prefix)


def test_the_assistants_message_is_continued_where_the_server_can(server: FaultyServer) -> None:
    writer = guide(server, style="chat", continue_message=True, template="Summarize: {text}")
    writer.write([Request("a postshort", 4, 0, prompt_length=6), Request("a post", 4, 0, prompt_length=6)])
    by_length = sorted((body["messages"] for body in server.bodies), key=len)
    asked = {"role": "user", "content": "Summarize: a post"}
    assert by_length == [[asked], [asked, {"role": "assistant", "content": "short"}]]


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
