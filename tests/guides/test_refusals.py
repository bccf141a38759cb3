"""Why a server refused, and what to write into the recipe."""

from __future__ import annotations

import pytest
from reply_toys import error, guide_of

from faulty_server import FaultyServer, serving
from rlgf.errors import UserError
from rlgf.guides import Request


def test_an_empty_prompt_is_sent_and_its_refusal_says_what_to_do() -> None:
    with serving(FaultyServer()) as server:
        guide_of(server).write([Request("", 4, 0)])
        assert server.bodies[0]["prompt"] == ""
    with (
        serving(FaultyServer(always=(400, error("prompt must not be empty")))) as server,
        pytest.raises(UserError, match=r"refuses an empty prompt.*'guide.style: chat'"),
    ):
        guide_of(server).write([Request("", 4, 0)])
