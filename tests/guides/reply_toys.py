"""Guides whose server always replies the same."""

from __future__ import annotations

from typing import Any

from http_toys import MADE

from faulty_server import FaultyServer, serving
from rlgf.guides import HTTPGuide, HTTPGuideConfig, Request


def guide_of(server: FaultyServer, **settings: Any) -> HTTPGuide:
    settings = {"model": "letters", "cache": None, "timeout": 2.0, "patience": 20.0} | settings
    made = HTTPGuide(HTTPGuideConfig(url=server.url, **settings))
    MADE.append(made)
    return made


def chat(content: Any, reason: str | None = "stop", usage: Any = None, **message: Any) -> dict[str, Any]:
    choice = {
        "index": 0,
        "finish_reason": reason,
        "message": {"role": "assistant", "content": content, **message},
    }
    return {"object": "chat.completion", "choices": [choice], "usage": usage}


def asked_once(reply: Any, style: str = "chat", **settings: Any) -> tuple[Any, HTTPGuide, int]:
    """The completion of one request to a server that always replies so, the guide, and how often it asked."""
    with serving(FaultyServer(always=(200, reply))) as server:
        writer = guide_of(server, style=style, **settings)
        (completion,) = writer.write([Request("It was ", 4, 0)])
        return completion, writer, sum(server.seen.values())


def error(message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}
