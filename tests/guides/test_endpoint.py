"""A server that fails is asked again, as long as that may help."""

from __future__ import annotations

import math
import time
from typing import Any

import httpx2
import openai
import pytest
from http_toys import expected, guide, requests

from faulty_server import FAULTS, FaultyServer, serving
from rlgf.errors import UserError
from rlgf.guides.endpoint import _retry_after


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_survived(fault: str) -> None:
    with serving(FaultyServer(faults=[fault], share=0.5, hang=0.3)) as server:
        asked = requests(12)
        writer = guide(server, timeout=0.2 if fault == "hang" else 5.0)  # which a busy machine keeps to
        assert [c.text for c in writer.write(asked)] == expected(asked)
        assert writer.usage.calls == 12
        failed = 0 if fault == "slow" else sum(server.seen.values()) - 12
        assert writer.usage.retries == failed
        assert failed or fault == "slow"


def test_a_server_says_when_to_come_back() -> None:
    def waits(headers: dict[str, str]) -> float:
        response = httpx2.Response(429, headers=headers, request=httpx2.Request("POST", "http://x"))
        return _retry_after(openai.RateLimitError("slow down", response=response, body=None))

    assert waits({"retry-after": "7"}) == 7.0
    soon = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    assert 25 < waits({"retry-after": soon}) <= 30
    assert waits({}) == 0.0
    assert waits({"retry-after": "soon"}) == 0.0
    # A moment that has passed is no reason to hurry.
    for past in ("0", "-5", "nan", "inf", "Sat, 01 Jan 2000 00:00:00 GMT", "Fri, 99 Foo 99999"):
        assert waits({"retry-after": past}) == 0.0


class Limited(FaultyServer):
    """Gives three answers in each half second."""

    window, given = 0, 0

    def fault(self, asked: str, attempt: int) -> str | None:
        now = 2 * time.monotonic()
        with self.lock:
            if int(now) != self.window:
                self.window, self.given = int(now), 0
            self.given += 1
            self.retry_after = (math.ceil(now) - now) / 2 + 0.01
            return "rate limit" if self.given > 3 else None


def test_a_server_that_answers_few_at_a_time_is_at_work() -> None:
    """Whoever was told to wait makes all wait, and no request is given up while others are answered."""
    with serving(Limited()) as server:
        asked = requests(24)
        writer = guide(server, patience=1.2, timeout=5.0)
        assert [c.text for c in writer.write(asked)] == expected(asked)
        assert writer.usage.retries < 200


@pytest.mark.parametrize(
    ("serve", "ask", "message"),
    [
        ({"key": "secret-1"}, {}, "environment variable OPENAI_API_KEY is not set"),
        ({"model": "other"}, {}, r"no model letters.*set 'guide.model'.*choose from other"),
        ({"context": 5}, {}, "context holds 5 tokens.*'rollout.max_response_tokens'"),
        (
            {"faults": ["server error"], "share": 1.0},
            {"patience": 0.5},
            r"no usable answer within 0 s.*out of order",
        ),
        ({"faults": ["no choices"], "share": 1.0}, {"patience": 0.5}, "without choices"),
        (
            {"faults": ["hang"], "share": 1.0, "hang": 0.5},
            {"patience": 0.5, "timeout": 0.1},
            r"timed out.*Raise 'guide.timeout', lower 'guide.concurrency'",
        ),
        (
            {"faults": ["rate limit"], "share": 1.0},
            {"patience": 0.5},
            "slow down. Lower 'guide.concurrency' or raise 'guide.patience'",
        ),
        ({"faults": ["drip"], "share": 1.0, "hang": 30.0}, {"patience": 0.5}, "no usable answer.*timed out"),
    ],
)
def test_what_cannot_be_mended_by_asking_again_is_one_sentence(
    serve: dict[str, Any], ask: dict[str, Any], message: str
) -> None:
    with serving(FaultyServer(**serve)) as server, pytest.raises(UserError, match=message) as caught:
        guide(server, **ask).write(requests(1))
    assert "\n" not in str(caught.value)


def test_no_server_is_one_sentence_within_the_patience(server: FaultyServer) -> None:
    writer = guide(server, patience=1.0)
    server.shutdown()
    server.server_close()
    started = time.perf_counter()
    refused = pytest.raises(UserError, match=r"Start the server or mend the address")
    with pytest.warns(UserWarning, match=r"No server listens at 'guide\.url' .* for 1 s") as said, refused:
        writer.write(requests(3))
    assert time.perf_counter() - started < 5
    assert len(said) == 1, "it is said once, not of each request"


def test_no_wait_goes_beyond_the_patience() -> None:
    """Neither one that the server asks for, nor one that has grown long."""
    with serving(FaultyServer(faults=["rate limit"], share=1.0, retry_after=30.0)) as server:
        started = time.perf_counter()
        with pytest.raises(
            UserError, match=r"slow down.*no request for 30 s: raise 'guide\.patience' above that"
        ):
            guide(server, patience=1.0).write(requests(3))
    assert 1 <= time.perf_counter() - started < 5


def test_a_server_that_comes_back_is_waited_for() -> None:
    first = FaultyServer()
    with serving(first):
        writer = guide(first, timeout=2.0)
        writer.write(requests(1))
    writer.prefetch(requests(3, start=1))
    time.sleep(0.5)
    with serving(FaultyServer(("127.0.0.1", first.server_port))):
        asked = requests(3, start=1)
        assert [c.text for c in writer.write(asked)] == expected(asked)
    assert writer.usage.retries
