"""What the log says of an update's episodes, against counts by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hinted_texts import PLAIN

from resume_script import toy_trainer
from rlgf.guides.base import Completion, Request
from rlgf.objectives.advantages import gae
from rlgf.run.update_metrics import describe, mean_kl
from rlgf.types import Author
from training_toys import ROWS, build, experience_of


def test_an_adaptive_lambda_is_told(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, algorithm={"base": "ppo", "gae_lambda": "adaptive"}, seed=3)
    experience = trainer.assess(trainer.collect())
    scored = experience.scored
    assert scored.values is not None
    assert experience.token_rewards is not None
    assert experience.returns is not None
    seen = experience.token_rewards, scored.values, experience.rollout.authored, trainer.row().gamma
    told = describe(experience, trainer.row())["gae_lambda"]
    assert 0 < told <= 1
    torch.testing.assert_close(experience.returns, gae(*seen, told)[1])
    assert "gae_lambda" not in describe(experience, ROWS["ppo"])


def test_the_lambda_that_is_told_is_the_one_that_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlgf.objectives.advantages.adaptive_lambda", lambda *seen: 0.25)
    trainer = toy_trainer(tmp_path, algorithm={"base": "ppo", "gae_lambda": "adaptive"})
    assert trainer.step()["gae_lambda"] == 0.25


def test_help_is_counted_over_episodes(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, algorithm="ppo++", seed=3)
    experience = trainer.assess(trainer.collect())
    found = describe(experience, trainer.row())
    authors = experience.rollout.author.tolist()
    guided = [row.count(Author.GUIDE) for row in authors]
    rewards = experience.scored.rewards
    assert rewards is not None
    helped = [reward for reward, count in zip(rewards.tolist(), guided, strict=True) if count]
    alone = [reward for reward, count in zip(rewards.tolist(), guided, strict=True) if not count]
    assert helped
    assert alone
    assert found["helped"] == pytest.approx(len(helped) / 8)
    assert found["help_tokens"] == pytest.approx(sum(guided) / len(helped))
    assert found["reward_helped"] == pytest.approx(sum(helped) / len(helped))
    assert found["reward_alone"] == pytest.approx(sum(alone) / len(alone))
    assert found["explained_variance"] <= 1


def test_the_guides_texts_are_compared_with_the_policys_own_under_the_start(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, algorithm="ppo++", seed=3)
    experience = trainer.assess(trainer.collect())
    found = describe(experience, trainer.row())
    start = experience.scored.reference_logprobs
    assert start is not None
    of: dict[int, list[float]] = {}
    for authors, logprobs in zip(experience.rollout.author.tolist(), start.tolist(), strict=True):
        for author, logprob in zip(authors, logprobs, strict=True):
            of.setdefault(author, []).append(logprob)
    policy, guide = of[Author.POLICY], of[Author.GUIDE]
    assert found["guide_gap"] == pytest.approx(sum(policy) / len(policy) - sum(guide) / len(guide), rel=1e-4)
    assert found["guide_blank"] == 0
    assert "guide_cut" not in found, "it begins texts and finishes none"


@pytest.mark.parametrize("algorithm", ["ppo++", "luffy", "aggrevated", "dagger", "seq-kd", "gad"])
@pytest.mark.parametrize("said", ["", "b"])
def test_a_guide_that_writes_nothing_is_told_of(said: str, algorithm: str, tmp_path: Path) -> None:
    class Guide:
        def write(self, requests: Sequence[Request]) -> list[Completion]:
            return [Completion(said, finished=True)] * len(requests)

    changes = {"reward": {"name": "discriminator"}} if algorithm == "gad" else {}
    trainer = toy_trainer(tmp_path, guide=Guide(), algorithm=algorithm, **changes)
    assert trainer.step()["guide_blank"] == float(not said)


def test_a_guide_that_is_asked_for_nothing_is_not_silent(tmp_path: Path) -> None:
    """As at the end of a curriculum, whose bounds fall to 0."""
    ended = {"help": {"probability": 1, "length": {"high": 0}}}
    assert "guide_blank" not in toy_trainer(tmp_path, algorithm={"base": "ppo++", **ended}).step()


def test_no_coefficient_is_told_where_no_penalty_reads_it(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, algorithm="dpo")
    found = describe(trainer.assess(trainer.collect()), trainer.row())
    assert "kl_coefficient" not in found
    assert found["kl"] == pytest.approx(0, abs=1e-9)


def test_nothing_is_said_of_help_where_nobody_helps(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, algorithm="rloo")
    found = describe(trainer.assess(trainer.collect()), trainer.row())
    assert not {"helped", "reward_alone", "explained_variance", "guide_gap", "guide_blank"} & found.keys()


def test_the_kl_in_the_loss_is_reported_as_the_kl_of_the_moment() -> None:
    trainer = build("grpo", update={"epochs": 1, "minibatch": 16})
    row = ROWS["grpo"].changed(kl={"coefficient": 0.3})
    experience = experience_of(trainer, row)
    reported = trainer.parts.updater.update(experience, row)
    assert reported["kl_estimate"] == pytest.approx(mean_kl(experience.scored), rel=1e-4)


def test_the_log_tells_what_hints_had_no_room() -> None:
    row = {"script": {"hint": {"template": PLAIN}}, "help": {"length": {"low": 1.0, "high": 1.0}}}
    assert build("questa", changes=row, rollout={"max_hint_tokens": 1}).step()["hint_cut"] == 1
    assert "hint_cut" not in build("grpo").step()


def test_the_log_tells_of_hints() -> None:
    trainer = build("questa", changes={"script": {"hint": {"template": PLAIN}}})
    metrics = trainer.step()
    assert 0 < metrics["helped"] <= 1
    assert 1 <= metrics["help_tokens"] <= 16
    assert metrics["hint_cut"] == 0
    assert metrics["update_kl"] >= 0
    # What was sampled after a hint is no measure of how far the policy has moved after the prompt without it.
    assert (
        "update_kl"
        not in build(
            "questa",
            changes={
                "terms": {t: {"view": "prompt"} for t in ("policy", "kl")},
                "script": {"hint": {"template": PLAIN}},
                "help": {"length": {"low": 1.0, "high": 1.0}},
            },
        ).step()
    )


def test_an_update_without_a_token_of_the_policy_has_no_entropy(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, algorithm="ppo++", seed=3)
    experience = trainer.assess(trainer.collect())
    assert describe(experience, trainer.row())["entropy"] > 0
    rollout = experience.rollout
    by_others = replace(
        rollout, author=rollout.author.masked_fill(rollout.author == Author.POLICY, Author.GUIDE)
    )
    silent = replace(experience, scored=replace(experience.scored, rollout=by_others))
    assert "entropy" not in describe(silent, trainer.row())
