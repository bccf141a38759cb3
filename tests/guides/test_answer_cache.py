"""Answers that were paid for are kept, and none is asked for twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from http_toys import guide, requests
from reply_toys import guide_of

from chat_toys import ASKED, BEGUN, SYSTEM, USER, asked_over_http
from faulty_server import FaultyServer, answer_to, serving
from rlgf.errors import UserError
from rlgf.guides import ReplayGuide, ReplayGuideConfig, Request
from rlgf.guides.answer_cache import GuideCache


def test_nothing_is_asked_twice(server: FaultyServer, tmp_path: Path) -> None:
    asked = requests(10)
    first = guide(server, tmp_path).write([*asked, *asked])
    again = guide(server, tmp_path)
    assert [c.text for c in again.write(asked)] == [c.text for c in first[:10]]
    assert sum(server.seen.values()) == 10
    assert (again.usage.calls, again.usage.cached) == (0, 10)
    summary = GuideCache(str(tmp_path)).summary()["letters"]
    assert summary["answers"] == 10
    assert summary["hits"] == 10
    assert summary["tokens saved"] == summary["tokens"]


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0.5}, {"top_p": 0.5}, {"style": "chat"}, {"token_ratio": 2.0}],
)
def test_other_settings_are_other_answers(
    server: FaultyServer, tmp_path: Path, change: dict[str, Any]
) -> None:
    guide(server, tmp_path).write(requests(1))
    guide(server, tmp_path, **change).write(requests(1))
    assert sum(server.seen.values()) == 2


def test_another_seed_prefix_or_length_is_another_answer(server: FaultyServer, tmp_path: Path) -> None:
    writer = guide(server, tmp_path)
    writer.write([Request("a", 4, 0), Request("a", 4, 1), Request("b", 4, 0), Request("a", 5, 0)])
    assert sum(server.seen.values()) == 4


class Breaking(FaultyServer):
    """Answers a few requests and then none."""

    def fault(self, asked: str, attempt: int) -> str | None:
        return "server error" if sum(self.answered.values()) >= 5 else None


def test_what_was_answered_before_a_failure_is_kept(tmp_path: Path) -> None:
    with serving(Breaking()) as server:
        with pytest.raises(UserError, match="no usable answer"):
            guide(server, tmp_path, patience=0.01, concurrency=4).write(requests(20))
        answered = len(server.answered)
        assert 5 <= answered < 20
        assert len(list(GuideCache(str(tmp_path)).entries())) == answered


WRITER = """
import sys
from rlgf.guides import Request
from rlgf.guides.answer_cache import GuideCache
cache, who = GuideCache(sys.argv[1]), sys.argv[2]
for i in range(300):
    for text in (f"{who} {i}", f"both {i}"):
        cache.put({"model": "m"}, Request(text, 4, i), {"text": text, "prompt_tokens": 1, "completion_tokens": 1})
    cache.count_hits({"model": "m"}, 1)
"""


@pytest.mark.long
def test_several_processes_share_a_cache(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), who]) for who in ("a", "b")]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    cache = GuideCache(str(tmp_path))
    assert cache.summary() == {"m": {"answers": 900, "tokens": 1800, "hits": 600, "tokens saved": 1200}}
    for i in range(300):
        for text in (f"a {i}", f"b {i}", f"both {i}"):
            assert (cache.get({"model": "m"}, Request(text, 4, i)) or {})["text"] == text


def test_a_cache_of_another_version_is_refused(tmp_path: Path) -> None:
    cache = GuideCache(str(tmp_path))
    cache._store["format"] = "rlgf-guide-cache-0"
    with pytest.raises(UserError, match=r"format 'rlgf-guide-cache-0'.*move it away"):
        GuideCache(str(tmp_path))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "cache.db").write_text("no data base")
    with pytest.raises(UserError, match="cannot be read"):
        GuideCache(str(tmp_path / "other"))


def test_an_export_holds_one_guide(tmp_path: Path) -> None:
    with serving(FaultyServer()) as server, serving(FaultyServer(model="other")) as two:
        cache = str(tmp_path / "cache")
        guide_of(server, cache=cache).write(requests(3))
        guide_of(server, cache=cache, temperature=0.5).write(requests(2))
        guide_of(two, cache=cache, model="other").write(requests(1))
    kept, file = GuideCache(cache), tmp_path / "export.jsonl"
    names = sorted(kept.summary())
    assert names == ["letters temperature=0.5", "letters temperature=1.0", "other"]
    with pytest.raises(UserError, match=r"several guides.*--model.*letters temperature=0.5.*other"):
        kept.export(file)
    with pytest.raises(UserError, match="no answers of 'letter'"):
        kept.export(file, "letter")
    with pytest.raises(UserError, match=r"several guides.*temperature=1.0'\.$"):
        kept.export(file, "letters")
    assert kept.export(file, "letters temperature=1.0") == 3
    answer = ReplayGuide(ReplayGuideConfig(file=file)).write(requests(1))[0]
    assert answer.text == answer_to("text 0 ", 0, "abcd", 6)
    both = file.read_text()
    kept.export(file, "other")
    file.write_text(both + file.read_text())
    with pytest.raises(UserError, match=r"mixes the answers of several guides \(letters, other\)"):
        ReplayGuide(ReplayGuideConfig(file=file))


def test_answers_are_kept_by_the_messages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another policy's template asks a chat API for the same, another conversation for something else."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    other = Request("assistant says  a jo", 4, 0, prompt_length=15, messages=BEGUN.messages)
    changed = Request(BEGUN.prefix, 4, 0, prompt_length=26, messages=(USER,))
    settings: dict[str, Any] = {"style": "chat", "cache": str(tmp_path / "cache")}
    with serving(FaultyServer()) as server:
        texts = [asked_over_http(server, one, **settings)[1] for one in (BEGUN, other, changed)]
        assert texts[0] == texts[1]
        assert [body["messages"][:-2] for body in server.bodies] == [ASKED, ASKED[1:]]
    GuideCache(settings["cache"]).export(tmp_path / "export.jsonl")
    replay = ReplayGuide(ReplayGuideConfig(file=tmp_path / "export.jsonl"))
    assert [c.text.strip() for c in replay.write([BEGUN, other, changed])] == [t.strip() for t in texts]
    with pytest.raises(UserError, match="has no completion of"):
        replay.write([Request("the film?", 4, 0, messages=(SYSTEM,))])
