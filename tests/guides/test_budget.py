"""A budget is never exceeded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from http_toys import guide, requests
from reply_toys import guide_of

from chat_toys import asked_over_http
from faulty_server import FaultyServer, serving
from rlgf.errors import UserError
from rlgf.guides import BudgetSpentError, Request
from rlgf.guides.base import Usage
from rlgf.guides.budget import over_budget
from rlgf.guides.http_config import BudgetConfig
from rlgf.types import Message


@pytest.mark.parametrize(
    ("budget", "affordable"),
    [({"calls": 5}, 5), ({"tokens": 5 * (4 + 6)}, 5), ({"cost": 5 * (4 * 1 + 6 * 2) / 1e6}, 5)],
)
def test_a_budget_is_never_exceeded(server: FaultyServer, budget: dict[str, Any], affordable: int) -> None:
    writer = guide(server, budget=budget, prices={"prompt": 1.0, "completion": 2.0})
    with pytest.raises(BudgetSpentError, match=r"'guide.budget'.*raise it, or set"):
        writer.write(requests(affordable + 1))
    assert not server.seen, "not one of a batch that is too large"
    writer.write(requests(affordable - 1))
    assert writer.usage.calls == affordable - 1


def test_prefetching_keeps_to_the_budget(server: FaultyServer) -> None:
    writer = guide(server, timeout=5.0, budget={"calls": 5})  # a slow machine asks no sixth time
    writer.prefetch(requests(9))
    assert writer.aside["letters"].calls == 0, "they go together or not at all"
    writer.write(requests(5))
    assert sum(server.seen.values()) == 5
    with pytest.raises(BudgetSpentError):
        writer.write(requests(1, start=5))


def test_what_was_asked_ahead_is_booked_at_the_end_of_the_budget() -> None:
    """And read later without being booked again."""
    with serving(FaultyServer(latency=0.2)) as server:
        writer = guide(server, timeout=5.0, budget={"calls": 5})
        writer.prefetch(requests(4))
        with pytest.raises(BudgetSpentError, match="4 calls"):
            writer.write(requests(3, start=4))
        assert writer.usage.calls == sum(server.answered.values()) == 4
        assert writer.aside["letters"].calls == 0
        writer.write(requests(4))
    assert (writer.usage.calls, writer.usage.cached) == (4, 4)


def test_what_is_in_the_cache_does_not_count_against_a_budget(tmp_path: Path) -> None:
    with serving(FaultyServer()) as server:
        guide_of(server, cache=str(tmp_path)).write(requests(9))
        poor = guide_of(server, cache=str(tmp_path), budget={"calls": 3})
        poor.prefetch(requests(9))
        asked = requests(9) + requests(3, start=9)
        assert len(poor.write(asked)) == 12
        assert (poor.usage.calls, poor.usage.cached) == (3, 9)


def test_a_spent_budget_advises_only_what_is_not_set() -> None:
    stop, on = (
        over_budget(BudgetConfig(calls=1, then=then), Usage(calls=1)) for then in ("stop", "unguided")
    )
    assert stop.endswith("or set 'guide.budget.then: unguided'.")
    assert on.endswith("'guide.budget' {'calls': 1}.")


def test_a_limited_budget_counts_every_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    long = Request("short", 4, 0, messages=(Message("user", "x" * 400),))
    with serving(FaultyServer()) as server, pytest.raises(UserError, match="budget is spent"):
        asked_over_http(server, long, style="chat", budget={"tokens": 100})
    assert not server.bodies
