"""Whose answers are kept: those of one model of one server."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from http_toys import requests
from reply_toys import chat, guide_of

from faulty_server import FaultyServer, serving
from rlgf.errors import UserError
from rlgf.guides.answer_cache import GuideCache


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


class Loading(FaultyServer):
    """Tells what its model is once it has been asked, as llama.cpp does that loads it."""

    def fault(self, asked: str, attempt: int) -> str | None:
        self.listed = {"meta": {"n_params": 1}}
        return None


def test_answers_of_a_server_that_was_loading_are_found_again(tmp_path: Path) -> None:
    with serving(Loading(listed={"meta": None})) as server:
        for _ in range(2):
            guide_of(server, cache=str(tmp_path)).write(requests(3))
        assert sum(server.seen.values()) == 3


def test_fields_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    with serving(FaultyServer()) as server:
        (first,) = guide_of(server, cache=str(tmp_path)).write(requests(1))
        cache = GuideCache(str(tmp_path))
        (key,) = [key for key in cache._store.iterkeys() if key.startswith("answer ")]
        entry = cache._store[key]
        cache._store[key] = {**entry, "answer": {**entry["answer"], "mood": "good"}}
        cache.close()
        assert guide_of(server, cache=str(tmp_path)).write(requests(1)) == [first]


def break_cache(folder: Path, statement: str) -> None:
    """Change a cache behind its back."""
    with closing(sqlite3.connect(folder / "cache.db")) as database, database:
        database.execute(statement)


def test_answers_that_cannot_be_kept_are_used_all_the_same(tmp_path: Path) -> None:
    with serving(FaultyServer()) as server:
        writer = guide_of(server, cache=str(tmp_path), concurrency=1)
        first = writer.write(requests(1))
        break_cache(
            tmp_path,
            "CREATE TRIGGER full BEFORE INSERT ON Cache BEGIN SELECT RAISE(FAIL, 'the disk is full'); END",
        )
        with pytest.warns(
            UserWarning, match=rf"cache {tmp_path} cannot be written \(the disk is full\)"
        ) as told:
            later = writer.write(requests(3))
        assert len(told) == 1
        assert later[:1] == first, "what is there is read"
        assert (writer.usage.calls, writer.usage.cached) == (3, 1)
        assert writer.write(requests(2, start=3))[0].text, "and nothing is said twice"


def test_a_cache_that_cannot_be_read_any_more_is_one_sentence(tmp_path: Path) -> None:
    with serving(FaultyServer()) as server:
        writer = guide_of(server, cache=str(tmp_path))
        writer.write(requests(1))
        break_cache(tmp_path, "DROP TABLE Cache")
        with pytest.raises(
            UserError, match=rf"cache {tmp_path} cannot be read \(no such table.*another folder\.$"
        ):
            writer.write(requests(1))


def test_a_model_that_only_thought_is_asked_again_once_it_may_speak(tmp_path: Path) -> None:
    """Where its server turned its thinking off, nothing that answers are kept by has changed."""
    with serving(FaultyServer(always=(200, chat("", "length")))) as server:
        with pytest.raises(UserError, match="spent all of its tokens on thinking"):
            guide_of(server, cache=str(tmp_path), style="chat").write(requests(1))
        server.always = (200, chat(" good"))
        writer = guide_of(server, cache=str(tmp_path), style="chat")
        assert writer.write(requests(1))[0].text == " good"
        server.always = (200, chat("", "length"))
        for _ in range(2):
            assert writer.write(requests(1, start=1))[0].text == ""
        assert sum(server.seen.values()) == 3, "once it has spoken, all that it says is kept"
