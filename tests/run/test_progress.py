"""A run may be bounded by tokens, so that algorithms can be compared at equal ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from resuming import equal, metrics, state

from resume_script import toy_trainer
from training_toys import build

EACH = 8 * 6
"""Tokens of an update at most: episodes times the tokens of a response."""


@pytest.mark.parametrize("algorithm", ["ppo", "guided-grpo"])
def test_a_run_ends_after_the_update_that_reaches_its_policy_tokens(algorithm: str, tmp_path: Path) -> None:
    budget = 3 * EACH - EACH // 2
    trainer = toy_trainer(
        tmp_path / "run", algorithm=algorithm, training={"updates": 50, "policy_tokens": budget}
    )
    trainer.train()
    used = [row["policy_tokens"] for row in metrics(tmp_path / "run") if "policy_tokens" in row]
    assert used[-1] >= budget > used[-2]
    assert trainer.progress.update == len(used) < 50
    last = [row for row in metrics(tmp_path / "run") if "validation/reward" in row][-1]
    assert last["update"] == trainer.progress.update, "measured at its end too"


def test_a_run_ends_after_the_update_that_reaches_its_guide_tokens(tmp_path: Path) -> None:
    trainer = toy_trainer(
        tmp_path / "run", algorithm="ppo++", training={"updates": 50, "guide_tokens": EACH // 2}
    )
    trainer.train()
    used = [row["guide_tokens"] for row in metrics(tmp_path / "run") if "guide_tokens" in row]
    assert used[-1] >= EACH // 2 > used[-2]


@pytest.mark.long
def test_schedules_follow_the_tokens(tmp_path: Path) -> None:
    seen: list[float] = []
    help_ = {"base": "ppo++", "help": {"probability": {"start": 1.0, "end": 0.0, "shape": "step"}}}
    trainer = toy_trainer(
        tmp_path / "run",
        lambda update: seen.append(trainer.done_share),
        algorithm=help_,
        training={"updates": 1000, "policy_tokens": 4 * EACH},
    )
    while trainer.done_share < 1:
        share = trainer.progress.policy_tokens / (4 * EACH)
        assert trainer.done_share == pytest.approx(share)
        trainer.step()
    assert seen[0] == 0
    assert seen[-1] > 0.5


def test_a_mixture_changes_over_by_the_share_of_tokens(tmp_path: Path) -> None:
    trainer = toy_trainer(
        tmp_path / "run", algorithm="d2lols", training={"updates": 1000, "policy_tokens": 5 * EACH}
    )
    rows = []
    while trainer.done_share < 1:
        rows.append((trainer.done_share >= 0.4, trainer.row().name))
        trainer.step()
    assert {name for late, name in rows if late} == {"ppo++"}
    assert {name for late, name in rows if not late} == {"aggrevated"}


def test_a_run_within_a_budget_resumes_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    bounds: dict[str, Any] = {"training": {"updates": 40, "policy_tokens": 5 * EACH, "checkpoint_every": 2}}
    straight = toy_trainer(tmp_path / "straight", algorithm="d2lols", **bounds)
    straight.train()

    def stop(update: int) -> None:
        if update == 4 and trainer.progress.update == 3:
            raise KeyboardInterrupt

    trainer = toy_trainer(tmp_path / "run", stop, algorithm="d2lols", **bounds)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    resumed = toy_trainer(tmp_path / "run", algorithm="d2lols", **bounds)
    resumed.train(resume=True)
    assert equal(state(resumed), state(straight))
    assert metrics(tmp_path / "run") == metrics(tmp_path / "straight")


@pytest.mark.parametrize("name", ["ppo", "distill", "opd", "opsd"])
def test_tokens_of_a_guide_that_nobody_asks_for_texts_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"'training.guide_tokens' would never be reached, since '{name}'"):
        toy_trainer(tmp_path, algorithm=name, training={"guide_tokens": 10})


@pytest.mark.parametrize("bound", [{}, {"policy_tokens": 100 * EACH}])
def test_roll_ins_are_fetched_ahead_only_where_their_length_is_known(
    bound: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = toy_trainer(tmp_path / "run", algorithm="ppo++", training=bound)
    collector, asked = trainer.parts.collector, []
    monkeypatch.setattr(type(collector), "remote", property(lambda self: self), raising=False)
    monkeypatch.setattr(collector, "prefetch", lambda *given: asked.append(given))
    trainer.collect()
    assert bool(asked) == (not bound)


def test_where_the_policy_wrote_nothing_its_kl_steers_nothing() -> None:
    changes = {"group_size": 4, "help": {"success": 2.0}, "kl": {"coefficient": 0.1, "target": 0.01}}
    trainer = build("hpt", changes=changes, rollout={"episodes": 8})
    assert [trainer.step()["kl_coefficient"] for _ in range(3)] == [0.1] * 3


def test_the_kl_is_steered_also_where_no_reward_is_read() -> None:
    changes = {"terms": {"kl": {}}, "kl": {"coefficient": 0.1, "target": 1e-6, "horizon": 1}}
    trainer = build("opd", changes=changes)
    told = [trainer.step() for _ in range(3)]
    assert [one["kl_coefficient"] for one in told] == pytest.approx([0.1, 0.08, 0.096])
    assert told[0]["kl"] == pytest.approx(0, abs=1e-9)
    assert told[2]["kl"] > 1e-6
