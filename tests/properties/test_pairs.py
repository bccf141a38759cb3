"""Pairs in a run: whole ones in every minibatch, begun by a guide, and from a file."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pair_files import pair_file
from pairs_of_episodes import picked
from rich.console import Console
from torch import Tensor

from rlgf.config import Config
from rlgf.run.build import build_parts
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from rlgf.tasks import Task, build_task
from rlgf.types import Author, Experience, Sample
from toys import FavouringGuide, LetterTask, letter_gpt, share_of_a


def trainer(
    tmp_path: Path,
    algorithm: Any,
    task: Task | None = None,
    reward: Any = share_of_a,
    **options: Any,
) -> Trainer:
    sections: dict[str, Any] = {
        "task": {"name": "letters"},
        "policy": {"model": "made by hand"},
        "guide": {"model": "made by hand"},
        "reward": {"name": "share_of_a"} if reward is not None else None,
        "algorithm": algorithm,
        "output": str(tmp_path / "run"),
        "rollout": {"episodes": 16, "max_prompt_tokens": 4, "max_response_tokens": 6},
        "update": {"minibatch": 4, "epochs": 2, "learning_rate": 5e-3},
        "training": {"updates": 3, "trackers": [], "checkpoint_every": 1000},
        "evaluation": {"every": 1000, "samples": 16, "test_samples": 16},
    }
    for name, change in options.items():
        sections[name] = {**sections[name], **change}
    config = Config.model_validate(sections)
    guide = FavouringGuide("a", 0.6)
    parts = build_parts(config, task=task or LetterTask(), reward=reward, guide=guide, policy=letter_gpt())
    return Trainer(config, parts, Display(Console(quiet=True)))


def test_minibatches_hold_whole_pairs_and_every_pair_once_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = trainer(tmp_path, "guided-rebel", update={"minibatch": 5})
    seen: list[Experience] = []
    backward = learner.parts.updater.backward

    def recorded(batch: Experience, *rest: Any, **named: Any) -> dict[str, Tensor]:
        seen.append(batch)
        return backward(batch, *rest, **named)

    monkeypatch.setattr(learner.parts.updater, "backward", recorded)
    experience = learner.assess(learner.collect(learner.batch(), learner.row()), learner.row())
    pairs = len(experience.units)
    metrics = learner.learn(experience, learner.row())
    assert metrics["pairs"] == pairs == 4
    assert [len(batch) for batch in seen] == [4, 4, 4, 4]
    for batch in seen:
        groups = batch.rollout.group.tolist()
        assert groups[::2] == groups[1::2]
        assert (batch.scored.rewards[::2] > batch.scored.rewards[1::2]).all()
    for epoch in (seen[:2], seen[2:]):
        assert sorted(g for batch in epoch for g in batch.rollout.group[::2].tolist()) == [0, 1, 2, 3]


def test_an_update_in_which_all_texts_are_alike_learns_nothing(tmp_path: Path) -> None:
    learner = trainer(tmp_path, "dpo", reward=lambda prompts, completions, **columns: [0.5] * len(prompts))
    before = copy.deepcopy(learner.parts.policy.model.state_dict())
    metrics = learner.step()
    assert metrics["pairs"] == 0
    assert "gradient_norm" not in metrics, "there is no optimizer step"
    after = learner.parts.policy.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_guide_begins_texts_of_a_group_apart(tmp_path: Path) -> None:
    learner = trainer(tmp_path, "guided-dpo")
    rollout = learner.collect(learner.batch(), learner.row())
    begun = rollout.written_by(Author.GUIDE).sum(dim=1).view(-1, 4)
    assert (begun > 0).any()
    assert (begun == 0).any()
    assert any(len(set(group)) > 2 for group in begun.tolist())
    experience = learner.assess(rollout, learner.row())
    by_guide = picked(experience).rollout.written_by(Author.GUIDE)
    assert by_guide.any(), "a loss over pairs reads whole texts"


@pytest.mark.parametrize(
    ("name", "scored"), [("guided-rebel", True), ("guided-dpo", False), ("rebel", False)]
)
def test_the_old_policy_scores_a_guides_tokens_where_the_loss_reads_them(
    tmp_path: Path, name: str, scored: bool
) -> None:
    learner = trainer(tmp_path, name)
    experience = learner.assess(learner.collect(learner.batch(), learner.row()), learner.row())
    by_guide = experience.rollout.written_by(Author.GUIDE)
    by_policy = experience.rollout.written_by(Author.POLICY)
    assert bool((experience.old_logprobs[by_guide] < 0).any()) == scored
    sampled = experience.rollout.sampled_logprobs
    torch.testing.assert_close(experience.old_logprobs[by_policy], sampled[by_policy], atol=1e-5, rtol=1e-4)


OFFLINE = {"episodes": 32}


def test_offline_dpo_learns_from_a_file(tmp_path: Path) -> None:
    """Chosen texts hold the letter a, rejected ones the others; no reward is given, and no guide."""
    records = [
        {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        for prompt in ("a", "bc", "d")
        for chosen, rejected in (("aaaaaa", "bcdbcd"), ("aaabaa", "ddc"), ("caaaa", "bbbbad"))
    ]
    task = build_task("data", pair_file(tmp_path / "a.jsonl", *records))
    learner = trainer(
        tmp_path,
        "offline-dpo",
        task,
        reward=None,
        rollout=OFFLINE,
        update={"minibatch": 16},
        training={"updates": 15},
    )
    rollout = learner.collect(learner.batch(), learner.row())
    assert [text.count("a") >= 4 for text in rollout.texts] == [True, False] * 16
    assert rollout.finished.any()
    assert all(sample.references[0].count("a") >= 4 for sample in rollout.samples)
    before = share_of_a(["d"] * 16, learner_texts(learner))
    first = learner.step()
    assert first["pairs"] == 16
    assert "reward" not in first
    learner.train()
    last = json.loads((learner.config.folder / "metrics.jsonl").read_text().splitlines()[-2])
    assert last["pair_accuracy"] == 1.0
    assert last["margin"] > 1.0
    assert sum(share_of_a(["d"] * 16, learner_texts(learner))) > sum(before) + 4


def learner_texts(learner: Trainer) -> list[str]:
    return list(learner.parts.collector.answers(Author.POLICY, [Sample("d")] * 16).texts)


def test_a_term_on_the_references_reads_the_preferred_text(tmp_path: Path) -> None:
    algorithm = {
        "base": "offline-dpo",
        "terms": {"references": {"loss": "nll", "on": "references", "weight": 0.1}},
    }
    learner = trainer(tmp_path, algorithm, reward=None, rollout=OFFLINE)
    assert {s.references for s in learner.collect(learner.batch(), learner.row()).samples} == {("aaaaaa",)}
    assert learner.step()["references_loss"] > 0
