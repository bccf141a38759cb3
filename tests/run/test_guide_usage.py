"""The account of a run's guide, update by update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from rlgf.guides import EnsembleGuide, Request, Usage
from rlgf.run.guide_usage import GuideUsage
from rlgf.types import Completion


class Server:
    """A remote guide as an account sees it."""

    def __init__(self) -> None:
        self.accounts: Mapping[str, Usage] = {"one": Usage(calls=2, cost=0.5)}

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        return []

    def restore(self, accounts: Mapping[str, Usage]) -> None:
        self.accounts = accounts

    def prefetch(self, requests: Sequence[Request]) -> None: ...

    def affords(self, requests: Sequence[Request]) -> bool:
        return True

    def wind_down(self, why: str) -> None: ...

    @property
    def aside(self) -> Mapping[str, Usage]:
        return {}

    def share_budget(self, asides: Sequence[Mapping[str, Usage]], place: int) -> None: ...

    def close(self) -> None: ...


def test_each_update_is_told_what_is_new() -> None:
    server = Server()
    usage = GuideUsage(server)
    server.accounts = {
        "one": Usage(calls=5, cost=0.75, waited_seconds=1.0, busy_seconds=4.0),
        "two": Usage(calls=1),
    }
    found = usage.metrics()
    assert (found["guide_calls"], found["guide_cost"]) == (4.0, 0.25)
    assert found["guide_overlap"] == pytest.approx(0.75)
    again = usage.metrics()
    assert again["guide_calls"] == 0
    assert "guide_overlap" not in again
    assert usage.total.calls == 6


def test_of_several_guides_each_is_told_beside_the_sum() -> None:
    servers = {name: Server() for name in ("a", "b")}
    usage = GuideUsage(EnsembleGuide({name: (server, 1.0) for name, server in servers.items()}))
    servers["b"].accounts = {"one": Usage(calls=5, cost=0.5)}
    found = usage.metrics()
    assert (found["guide_calls"], found["guide_calls/a/one"], found["guide_calls/b/one"]) == (3.0, 0.0, 3.0)
    usage = GuideUsage(Server())
    assert not any("/" in name for name in usage.metrics())


def test_a_run_goes_on_from_the_account_of_its_checkpoint() -> None:
    saved = GuideUsage(Server()).dump()
    server = Server()
    server.accounts = {}
    usage = GuideUsage(server)
    usage.restore(saved)
    assert server.accounts == {"one": Usage(calls=2, cost=0.5)}
    assert usage.metrics()["guide_calls"] == 0, "what was there before is not new"


def test_what_is_asked_before_a_run_goes_on_counts_once() -> None:
    """Such as the trial at each start: a checkpoint knows of the first one's, and not of the next one's."""
    server = Server()
    usage = GuideUsage(server)
    saved = usage.dump()
    usage.restore(saved)
    assert usage.total.calls == 2, "the checkpoint knows of it"
    later = GuideUsage(Server())
    for _ in range(2):
        later.restore(saved)
        assert (later.total.calls, later.total.cost) == (4, 1.0)
    assert later.metrics()["guide_calls"] == 0
    later.restore(later.dump())
    assert later.total.calls == 4


def test_a_point_of_reward_has_its_price_where_any_was_gained() -> None:
    server = Server()
    server.accounts = {"one": Usage(calls=10, prompt_tokens=60, completion_tokens=40, cost=5.0)}
    found = GuideUsage(server).summary(0.2)
    assert found["calls_per_reward_point"] == pytest.approx(0.5)
    assert found["tokens_per_reward_point"] == pytest.approx(5.0)
    assert found["cost_per_reward_point"] == pytest.approx(0.25)
    assert "calls_per_reward_point" not in GuideUsage(server).summary(-0.1)


def test_a_guide_without_accounts_has_none() -> None:
    usage = GuideUsage(None)
    usage.settle()
    assert usage.metrics() == usage.summary(0.1) == usage.dump() == {}
    assert usage.total == Usage()
