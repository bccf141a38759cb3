"""What a chat API is sent of a text to continue."""

from __future__ import annotations

import pytest
from http_toys import guide

from faulty_server import FaultyServer, serving
from rlgf.guides import Request


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
