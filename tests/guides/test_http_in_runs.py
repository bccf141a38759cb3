"""Runs with a guide on a server: faults change no weight, and what was answered is not asked again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from http_toys import GUIDED, guide

from faulty_server import FAULTS, FaultyServer, serving
from resume_script import toy_trainer
from rlgf.errors import UserError
from rlgf.guides import BudgetSpentError
from rlgf.run.trainer import Trainer
from rlgf.types import Author

DIALOGUE = {"environment": {"name": "toys:says_d", "turns": 3}}
WHATEVER_IS_WRITTEN = pytest.mark.parametrize("kind", [{}, DIALOGUE], ids=["texts", "dialogues"])


def toy(
    folder: Path, server: FaultyServer, cache: Path | None = None, settings: Any = None, **changes: Any
) -> Trainer:
    return toy_trainer(folder, guide=guide(server, cache, **(settings or {})), **GUIDED | changes)


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.parts.policy.model.parameters()])


@pytest.mark.long
@WHATEVER_IS_WRITTEN
def test_faults_change_no_weight(tmp_path: Path, kind: dict[str, Any]) -> None:
    with serving(FaultyServer()) as calm, serving(FaultyServer(faults=FAULTS, share=0.2, hang=0.4)) as wild:
        runs = [
            toy(tmp_path / "calm", calm, **kind),
            toy(tmp_path / "wild", wild, settings={"timeout": 0.3}, **kind),
        ]
        for run in runs:
            run.train()
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    assert runs[1].guide_usage.total.retries > 0
    assert runs[0].guide_usage.total.calls == runs[1].guide_usage.total.calls > 10


@pytest.mark.long
@WHATEVER_IS_WRITTEN
def test_a_second_run_asks_for_nothing(tmp_path: Path, kind: dict[str, Any]) -> None:
    with serving(FaultyServer()) as server:
        first = toy(tmp_path / "first", server, tmp_path / "cache", **kind)
        first.train()
        asked = sum(server.seen.values())
        second = toy(tmp_path / "second", server, tmp_path / "cache", **kind)
        second.train()
        assert sum(server.seen.values()) == asked > 0
    assert torch.equal(weights(first), weights(second))


@pytest.mark.long
def test_a_dead_server_leaves_a_checkpoint_and_a_full_cache_needs_none(tmp_path: Path) -> None:
    with serving(FaultyServer()) as server:
        straight = toy(tmp_path / "straight", server, tmp_path / "cache")
        straight.train()
    with serving(FaultyServer()) as server:

        def dies(update: int) -> None:
            if update == 2:
                time.sleep(0.5)  # what was asked ahead for the third update has come
                server.faults, server.share = ["server error"], 1.0

        dying = toy_trainer(tmp_path / "dying", dies, guide=guide(server, patience=0.5), **GUIDED)
        with pytest.raises(UserError, match="no usable answer"):
            dying.train()
        # Every second update is saved anyway.
        assert sorted(path.name for path in (tmp_path / "dying" / "checkpoints").iterdir()) == [
            "000002",
            "000003",
        ]
    # No server listens any more.
    resumed = toy(tmp_path / "dying", server, tmp_path / "cache")
    resumed.train(resume=True)
    assert torch.equal(weights(resumed), weights(straight))


@pytest.mark.long
@WHATEVER_IS_WRITTEN
def test_a_spent_budget_stops_with_a_checkpoint_that_a_larger_one_resumes(
    tmp_path: Path, kind: dict[str, Any]
) -> None:
    with serving(FaultyServer()) as server:
        straight = toy(tmp_path / "straight", server, **kind)
        straight.train()
        poor = toy(tmp_path / "run", server, settings={"budget": {"calls": 17}}, **kind)
        with pytest.raises(BudgetSpentError):
            poor.train()
        assert 0 < poor.progress.update < 4
        rich = toy(tmp_path / "run", server, settings={"budget": {"calls": 100}}, **kind)
        rich.train(resume=True)
    assert torch.equal(weights(rich), weights(straight))
    assert rich.guide_usage.total.calls == straight.guide_usage.total.calls


@WHATEVER_IS_WRITTEN
def test_a_spent_budget_can_go_on_unguided(tmp_path: Path, kind: dict[str, Any]) -> None:
    with serving(FaultyServer()) as server:
        # A slow machine sends nothing twice, which the server would count.
        settings = {"timeout": 5.0, "budget": {"calls": 17, "then": "unguided"}}
        run = toy(tmp_path / "run", server, settings=settings, **kind)
        run.train()
        assert run.progress.unguided
        assert sum(server.seen.values()) <= 17
        rollout = run.collect(run.batch(), run.row())
        assert not rollout.written_by(Author.GUIDE).any()
        assert (rollout.dialogues is not None) == bool(kind)


def test_a_larger_budget_has_the_guide_back(tmp_path: Path) -> None:
    with serving(FaultyServer()) as server:

        def run(updates: int, **budget: Any) -> Trainer:
            settings = {
                "url": server.url,
                "model": "letters",
                "cache": None,
                "timeout": 5.0,
                "budget": budget,
            }
            made = toy_trainer(tmp_path, guide=settings, training={"updates": updates}, **GUIDED)
            made.train(resume=updates > 4)
            assert made.parts.collector.remote is not None
            made.parts.collector.remote.close()
            return made

        asked = [
            run(4, calls=12, then="unguided").guide_usage.total.calls,
            run(5, calls=12, then="unguided").guide_usage.total.calls,
            run(6, calls=100, then="unguided").guide_usage.total.calls,
        ]
    assert asked[1] == asked[0] + 1, "the trial alone"
    assert asked[2] > asked[1] + 2


def test_prefetched_requests_hide_the_guides_latency(tmp_path: Path) -> None:
    def pause(update: int) -> None:
        time.sleep(0.3)

    with serving(FaultyServer(latency=0.2)) as server:
        run = toy_trainer(tmp_path, pause, guide=guide(server), **GUIDED)
        cold, *warm = (run.step() for _ in range(4))
    # The requests leave a little before the clock of the waiting starts.
    assert float(cold["guide_waited_seconds"]) > 0.1
    for metrics in warm:
        assert float(metrics["guide_waited_seconds"]) < 0.15 * float(metrics["seconds"])
        assert float(metrics["guide_overlap"]) > 0.8
