"""Whose answers are kept: those of one model of one server."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from http_toys import requests
from reply_toys import guide_of

from faulty_server import FaultyServer, serving


def test_another_revision_is_asked_anew(tmp_path: Path) -> None:
    with serving(FaultyServer()) as server:
        for revision in (None, "2026-11", "2026-11"):
            guide_of(server, cache=str(tmp_path), revision=revision).write(requests(1))
        assert sum(server.seen.values()) == 2


@pytest.mark.parametrize(
    "field",
    [{"root": "two"}, {"created": 1_700_000_000}, {"owned_by": "somebody else"}, {"meta": {"n_params": 2}}],
)
def test_another_model_behind_the_same_name_is_asked_anew(tmp_path: Path, field: dict[str, Any]) -> None:
    """And the first one's answers are found again once it is back; with the server off, the last one's."""

    def write(server: FaultyServer) -> str:
        return guide_of(server, cache=str(tmp_path / "cache"), patience=1.0).write(requests(1))[0].text

    server = FaultyServer(listed={"created": int(time.time()), "root": "one"})
    with serving(server):
        first = write(server)
        server.letters, server.listed = "xyz", {"root": "one"} | field
        second = write(server)
        assert second != first
        server.letters, server.listed = "abcd", {"root": "one"}
        assert write(server) == first, "the time of asking is no model's"
        server.listed = {"root": "one"} | field
        assert write(server) == second
        assert sum(server.seen.values()) == 2
    assert write(server) == second


def test_a_server_without_a_list_of_models_is_known_by_its_name(tmp_path: Path) -> None:
    asked = []
    for listed in (404, {}, 500):
        with serving(FaultyServer(listed=listed)) as server:
            guide_of(server, cache=str(tmp_path)).write(requests(1))
            asked.append(sum(server.seen.values()))
    assert asked == [1, 0, 0]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_list_that_is_refused_for_once_changes_no_model(tmp_path: Path, status: int) -> None:
    texts = []
    with serving(FaultyServer()) as server:
        for letters, listed in (("abcd", {"root": "one"}), ("xyz", status), ("xyz", {}), ("uvw", status)):
            server.letters, server.listed = letters, listed
            (completion,) = guide_of(server, cache=str(tmp_path)).write(requests(1))
            texts.append(completion.text)
        assert sum(server.seen.values()) == 2, "a list that tells nothing is another model's"
    assert texts[0] == texts[1] == texts[3] != texts[2]
