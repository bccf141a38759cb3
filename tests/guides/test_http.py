"""A guide behind HTTP, asked over real sockets, with a server that works and one that does not."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from http_toys import expected, guide, requests
from reply_toys import error, guide_of

from faulty_server import FaultyServer, serving
from rlgf.errors import UserError
from rlgf.guides import Request
from rlgf.guides.answer_cache import GuideCache


def test_closing_gives_up_on_what_is_under_way() -> None:
    with serving(FaultyServer(faults=["server error"], share=1.0)) as server:
        writer = guide(server, patience=100.0)
        writer.prefetch(requests(3))
        time.sleep(0.2)
        started = time.perf_counter()
        writer.close()
        assert time.perf_counter() - started < 2


def test_answers_come_in_order_and_each_once(server: FaultyServer) -> None:
    asked = requests(50)
    assert [c.text for c in guide(server).write(asked)] == expected(asked)
    assert set(server.answered.values()) == {1}
    assert all(not c.finished for c in guide(server).write(asked[:2])), "cut by the limit"


def test_a_refused_key_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-2")
    with serving(FaultyServer(key="secret-1")) as server, pytest.raises(UserError, match="refused") as caught:
        guide(server, tmp_path).write(requests(1))
    assert "secret" not in str(caught.value)
    with serving(FaultyServer(key="secret-2")) as server:
        writer = guide(server, tmp_path)
        writer.write(requests(1))
        GuideCache(str(tmp_path)).export(tmp_path / "export.jsonl")
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"secret" not in kept
    assert "secret" not in repr(writer.config)


def test_empty_answers_are_counted(server: FaultyServer) -> None:
    server.replies = ["", "  "]
    writer = guide(server)
    writer.write(requests(4))
    assert writer.usage.empty == 4


def test_the_secret_of_a_header_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_GATEWAY", "secret-3")
    with (
        serving(FaultyServer(always=(400, error("bad key secret-3")))) as server,
        pytest.raises(UserError, match=r"\*\*\*") as caught,
    ):
        guide_of(server, headers={"X-Gateway-Key": "$MY_GATEWAY"}).write(requests(1))
    assert "secret" not in str(caught.value)


@pytest.mark.long
def test_ten_thousand_requests_are_prefetched_at_once(tmp_path: Path) -> None:
    """Whether they are in the cache or not, and with a budget that has to be watched."""
    asked = [Request(f"text {i} " * 20, 4, seed=i) for i in range(10_000)]
    with serving(FaultyServer(latency=0.2)) as server:
        for settings in ({"cache": str(tmp_path)}, {"budget": {"calls": 20_000, "tokens": 10**9}}):
            writer = guide_of(server, **settings)
            started = time.thread_time()  # that of training; a busy machine may take longer
            writer.prefetch(asked)
            assert time.thread_time() - started < 2
            started = time.perf_counter()
            writer.close()
            assert time.perf_counter() - started < 5, "only what is under way is waited for"


def test_closing_lets_come_what_is_paid_for(tmp_path: Path) -> None:
    with serving(FaultyServer(latency=0.3)) as server:
        writer = guide_of(server, cache=str(tmp_path), timeout=60.0, concurrency=2)
        writer.prefetch(requests(100))
        time.sleep(0.1)
        started = time.perf_counter()
        writer.close()
        assert time.perf_counter() - started < 5
        assert len(list(GuideCache(str(tmp_path)).entries())) == sum(server.answered.values()) >= 1


def test_closing_leaves_a_server_that_hangs() -> None:
    with serving(FaultyServer(latency=30.0)) as server:
        writer = guide(server, timeout=60.0)
        writer.prefetch(requests(2))
        time.sleep(0.2)
        started = time.perf_counter()
        writer.close()
        assert time.perf_counter() - started < 5


def test_requests_in_line_share_one_patience() -> None:
    """Those of `write` and those asked ahead, of which none is asked again before the next call."""
    with serving(FaultyServer(faults=["server error"], share=1.0)) as server:
        writer = guide_of(server, patience=1.0, concurrency=2)
        writer.prefetch(requests(20, start=20))
        started = time.perf_counter()
        with pytest.raises(UserError, match="no usable answer within 1 s") as caught:
            writer.write(requests(20))
        assert time.perf_counter() - started < 5
        with pytest.raises(UserError, match=str(caught.value)[:40]):
            writer.write(requests(1))
        server.share = 0.0
        asked = requests(40)
        assert [c.text for c in writer.write(asked)] == expected(asked)
    assert writer.aside["letters"].calls == 0


def test_what_was_asked_ahead_is_booked_when_another_request_fails() -> None:
    with serving(FaultyServer(context=30)) as server:
        writer = guide_of(server)
        writer.prefetch(requests(4))
        while sum(server.answered.values()) < 4:
            time.sleep(0.01)
        with pytest.raises(UserError, match="context holds"):
            writer.write([Request("long " * 10, 4, 0)])
    assert writer.usage.calls == 4


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_what_an_unusable_answer_costs_is_booked(share: float) -> None:
    """Of requests that are answered later, and of one that never is."""
    with serving(FaultyServer(faults=["no choices"], share=share)) as server:
        writer = guide_of(server, patience=20.0 if share < 1 else 0.5, prices={"prompt": 1.0})
        if share < 1:
            writer.write(requests(10))
        else:
            with pytest.raises(UserError, match="without choices"):
                writer.write(requests(1))
        attempts = sum(server.seen.values())
    assert attempts > sum(server.answered.values()) == writer.usage.calls
    assert writer.usage.prompt_tokens == 7 * attempts
    assert writer.usage.cost == pytest.approx(7 * attempts / 1e6)


def test_a_refusal_ends_what_is_in_line() -> None:
    with serving(FaultyServer(always=(400, error("no such field")))) as server:
        with pytest.raises(UserError, match="no such field"):
            guide_of(server, concurrency=2).write(requests(50))
        assert sum(server.seen.values()) < 10


def test_closing_tells_whoever_waits() -> None:
    told: list[str] = []

    def write() -> None:
        with pytest.raises(UserError, match="was closed") as caught:
            writer.write(requests(50))
        told.append(str(caught.value))

    with serving(FaultyServer(faults=["server error"], share=1.0)) as server:
        writer = guide_of(server, concurrency=2, patience=100.0)
        waiting = threading.Thread(target=write, daemon=True)
        waiting.start()
        time.sleep(0.3)
        writer.close()
        waiting.join(5)
    assert told
