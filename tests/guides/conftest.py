"""A server for the tests of this folder, and no guide of theirs left open."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faulty_server import FaultyServer, serving


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with serving(FaultyServer()) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_key_and_nothing_left_open(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from http_toys import MADE

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    yield
    while MADE:
        MADE.pop().close()
