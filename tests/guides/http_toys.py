"""Guides on the servers of `faulty_server`, and what they are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faulty_server import FaultyServer, answer_to
from rlgf.guides import HTTPGuide, HTTPGuideConfig, Request

MADE: list[HTTPGuide] = []
GUIDED = {"algorithm": {"base": "ppo++", "help": {"probability": 0.9}}}


def requests(count: int, start: int = 0) -> list[Request]:
    return [Request(f"text {i} ", 4, seed=i) for i in range(start, start + count)]


def guide(server: FaultyServer, folder: Path | None = None, **settings: Any) -> HTTPGuide:
    settings = {"timeout": 0.5, "patience": 20.0, "concurrency": 16} | settings
    cache = None if folder is None else str(folder)
    made = HTTPGuide(HTTPGuideConfig(url=server.url, model="letters", cache=cache, **settings))
    MADE.append(made)
    return made


def expected(asked: list[Request]) -> list[str]:
    return [answer_to(request.prefix, request.seed, "abcd", 6) for request in asked]


RECIPE: dict[str, Any] = {
    "task": "imdb",
    "reward": "sentiment",
    "algorithm": "ppo++",
    "policy": {"model": "x"},
    "guide": {"url": "http://127.0.0.1:1/v1", "model": "letters"},
}
