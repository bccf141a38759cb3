"""The three steps of an update: what each takes, trains and reports."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from counting_rewards import COUNTING, Counting
from torch import Tensor

from resume_script import toy_trainer
from rlgf.algorithms import ALGORITHMS
from rlgf.errors import UserError
from rlgf.models.samplers import Sampler
from rlgf.types import Author, take
from toys import sentence_of
from training_toys import ROWS, build, same


def test_a_batch_takes_one_sample_per_group() -> None:
    trainer = build("grpo")
    assert len(trainer.batch()) == 4
    assert len(trainer.collect(trainer.batch(), ROWS["grpo"])) == 16


def test_each_update_of_a_mixture_trains_the_critic_of_its_row() -> None:
    trainer = build("d2lols")
    critics = trainer.parts.updater.critics
    assert set(critics) == {"guide", "policy"}
    for critic in ("guide", "guide", "policy", "policy"):
        before = {name: copy.deepcopy(module.state_dict()) for name, module in critics.items()}
        trainer.step()
        assert [n for n, module in critics.items() if not same(module.state_dict(), before[n])] == [critic]


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_a_step_reports_finite_numbers(algorithm: str) -> None:
    given = algorithm == "offline-dpo"
    trainer = build(algorithm, rollout={} if given else {"min_response_tokens": 3})
    for _ in range(2):
        row = trainer.row()
        episodes = trainer.collect(trainer.batch(), row)
        metrics = trainer.step()
    assert metrics.pop("algorithm") == row.name
    assert all(isinstance(value, float | int) and math.isfinite(value) for value in metrics.values())
    assert metrics["response_tokens"] == pytest.approx(float(episodes.lengths.float().mean()))
    assert 0 < metrics["seconds_learn"] < metrics["seconds"]
    if row.needs_reward:
        by_policy = int(episodes.written_by(Author.POLICY).sum())
        # Of a group, a loss over pairs reads two whole texts; one with a term on roll-ins of others reads all of them.
        read = metrics["learned_tokens"]
        exact = algorithm not in ("luffy", "prefix-rft", "hpt", "uft") and not row.paired
        assert read == by_policy if exact else 0 < read <= int(episodes.lengths.sum())
        assert row.learned_reward or 0 <= metrics["reward"] <= 1
        assert 0 < metrics["entropy"] < 2 * math.log(5)


def test_a_coefficient_that_is_not_steered_is_the_one_of_the_row_that_runs(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, algorithm="grpo")
    trainer.step()
    other = trainer.row().changed(kl={"coefficient": 0.7})
    experience = trainer.assess(trainer.collect(), other)
    assert experience.kl_coefficient == 0.7
    assert trainer.learn(experience, other)["kl_coefficient"] == 0.7
    assert trainer.kl_coefficient(trainer.row()) == trainer.row().kl.coefficient


def immodest(logprobs: Tensor, advantages: Tensor, mask: Tensor, normalizer: float) -> tuple[Tensor, Any]:
    """A loss that reports under names that a run has for itself."""
    names = ("reward", "kl", "entropy", "algorithm", "update_kl", "first_step_kl", "gradient_norm")
    said = {name: torch.tensor(99.0) for name in (*names, "policy_loss", "value_loss", "mine")}
    return -(logprobs * advantages * mask).sum() / normalizer, said


def test_a_name_of_ours_stays_ours_whatever_a_loss_or_a_reward_reports() -> None:
    def reward(completions: list[str], log_metric: Any, **others: Any) -> list[float]:
        for name in ("reward", "policy_loss", "beside"):
            log_metric(name, 77.0)
        return [0.5] * len(completions)

    trainer = build(
        reward=reward,
        changes={"terms": {"policy": {"loss": f"{__name__}:immodest"}}},
        update={"max_update_kl": 1.0, "minibatch": 4, "epochs": 1},
    )
    metrics = trainer.step()
    assert metrics["mine"] >= 99
    assert metrics["beside"] == 77
    assert metrics["algorithm"] == "ppo"
    assert metrics["reward"] == 0.5
    for name in ("kl", "entropy", "update_kl", "first_step_kl", "gradient_norm", "policy_loss", "value_loss"):
        assert abs(float(metrics[name])) < 10, name
    updater = trainer.parts.updater
    step = updater.optimizer.state[next(iter(updater.policy.model.parameters()))]["step"]
    assert int(step) == 4, "no number of another's ended the update"


def test_a_name_of_ours_stays_ours_whatever_a_learning_reward_reports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = {"policy_loss": 99.0, "gradient_norm": 99.0, "reward": 99.0, "mine": 1.0}
    monkeypatch.setattr(Counting, "update", lambda self, rollout: said)
    metrics = build("grpo", reward=Counting()).step()
    assert metrics["mine"] == 1.0
    for name in ("policy_loss", "gradient_norm", "reward"):
        assert abs(float(metrics[name])) < 10, name


def test_weights_are_brought_where_the_policy_writes_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Sampler] = []
    for module in ("rlgf.run.steps", "rlgf.evaluation.evaluator"):
        monkeypatch.setattr(f"{module}.bring_weights", sent.append)
    trainer = build("rloo", changes={"terms": {"references": {"loss": "nll", "on": "references"}}})
    counts = []
    for act in (
        trainer.step,
        trainer.evaluate,
        lambda: trainer.evaluate(Author.GUIDE),
        lambda: trainer.evaluate(Author.REFERENCE),
    ):
        act()
        counts.append(len(sent))
        sent.clear()
    assert counts == [1, 1, 0, 0]


@pytest.mark.parametrize("name", ["grpo", "ppo", "guided-dpo", "chord", "gail", "bread"])
def test_an_update_of_which_no_episode_is_left_passes(name: str) -> None:
    trainer = build(name)
    policy = copy.deepcopy(trainer.parts.policy.model.state_dict())
    metrics = trainer.learn(take(trainer.assess(trainer.collect()), torch.tensor([], dtype=torch.long)))
    assert trainer.progress.update == 1
    assert same(trainer.parts.policy.model.state_dict(), policy)
    assert all(math.isfinite(value) for value in metrics.values() if not isinstance(value, str))


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("ppo", "a critic of the policy's texts"),
        ("aggrevated", "a critic of the guide's texts"),
        ("grpo", "a reward"),
        ("opd", "a guide that scores texts"),
        ("distill", "a guide with probabilities"),
    ],
)
def test_a_row_that_needs_what_the_run_has_not_is_refused(name: str, lacks: str) -> None:
    trainer = build("dagger")
    trainer.parts = replace(trainer.parts, assessor=replace(trainer.parts.assessor, reward=None))
    rollout = trainer.collect()
    refusal = f"algorithm '{name}' needs {lacks}, which the run was set up without"
    assert refusal in sentence_of(lambda: trainer.assess(rollout, ROWS[name]))
    assert refusal in sentence_of(lambda: trainer.collect(row=ROWS[name]))


def test_a_guide_that_is_not_there_is_not_measured() -> None:
    trainer = build("grpo")
    trainer.parts.collector.guide = None
    assert sentence_of(lambda: trainer.evaluate("guide")).startswith(
        "author 'guide' is not there: the recipe has"
    )


def test_a_learned_reward_is_updated_once_an_update_behind_the_policy(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, reward={"name": COUNTING})
    steps = [trainer.step() for _ in range(3)]
    assert [step["reward"] for step in steps] == [0, 8, 16], "paid by what it knew before the update"
    assert [step["seen"] for step in steps] == [8, 16, 24]
    assert trainer.evaluate("policy", "validation") == trainer.evaluate(Author.POLICY, "validation")
    with pytest.raises(UserError, match="author 'polcy' is not known: did you mean 'policy'"):
        trainer.evaluate("polcy")
    assert trainer.parts.assessor.state_dict()["reward"] == {"seen": 24}, "evaluation teaches it nothing"


def test_a_reward_is_not_taught_where_it_is_not_asked(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, reward={"name": COUNTING}, algorithm="bc")
    assert "seen" not in trainer.step()
