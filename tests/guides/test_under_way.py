"""Time in which several threads are at work counts once."""

from __future__ import annotations

import pytest

from rlgf.guides.under_way import Stopwatch


def test_overlapping_work_counts_once_and_idle_time_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("rlgf.guides.under_way.time.perf_counter", lambda: now)
    watch = Stopwatch()
    now = 5.0
    with watch:
        now = 6.0
        with watch:
            now = 8.0
        now = 9.0
        assert watch.take() == 4.0
        now = 10.0
    now = 20.0
    assert watch.take() == 1.0
    assert watch.take() == 0.0
