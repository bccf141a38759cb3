"""What a run keeps of its episodes: readable without the model, cut off on resume, and of no effect on training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from resume_script import LOLS, toy_trainer
from rlgf.run.logs import SamplesLog
from rlgf.states import digest
from rlgf.types import Author


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def weights(folder: Path, **changes: Any) -> str:
    trainer = toy_trainer(folder, **changes)
    trainer.train()
    updater = trainer.parts.updater
    return digest([updater.policy.model.state_dict(), updater.trained, updater.optimizer.state_dict()])


@pytest.mark.long
@pytest.mark.parametrize("changes", [{}, LOLS], ids=["ppo", "lols"])
def test_keeping_samples_changes_no_byte_of_training(tmp_path: Path, changes: dict[str, Any]) -> None:
    runs = {
        kept: weights(tmp_path / str(kept), **changes, training={"samples_kept": kept}) for kept in (0, 3, 8)
    }
    assert len(set(runs.values())) == 1
    assert not (tmp_path / "0" / "samples.jsonl").exists()
    for kept in (3, 8):
        training = [r for r in records(tmp_path / str(kept)) if r["split"] == "train"]
        assert [r["update"] for r in training] == sorted([1, 2, 3, 4] * kept)


def test_a_record_holds_the_update_token_by_token(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, algorithm="ppo++", seed=3)
    experience = trainer.assess(trainer.collect())
    row = trainer.row()
    trainer.learn(experience)
    SamplesLog(tmp_path, 8, trainer.parts.policy).write(1, experience, row)
    found = {r["episode"]: r for r in records(tmp_path)}
    rollout, scored = experience.rollout, experience.scored
    assert found.keys() == set(range(8))
    assert {author for r in found.values() for author, _ in r["authors"]} == {"policy", "guide"}
    for number, record in found.items():
        authors = [name for name, count in record["authors"] for _ in range(count)]
        length = int(rollout.lengths[number])
        assert "".join(record["tokens"]) == rollout.texts[number]
        assert authors == [Author(a).name.lower() for a in rollout.author[number, :length].tolist()]
        assert record["reward"] == pytest.approx(float(scored.rewards[number]))
        assert record["prompt"] == rollout.prompts[number]
        for t, author in enumerate(authors):
            learned = author == "policy"
            if learned:
                expected = float(experience.advantages[number, t])
                assert record["advantages"][t] == pytest.approx(expected, rel=1e-3, abs=1e-6)
            if learned:
                apart = float(rollout.sampled_logprobs[number, t] - scored.reference_logprobs[number, t])
                assert record["ratio"][t] == pytest.approx(math.exp(apart), rel=1e-3)
                assert record["kl"][t] == pytest.approx(math.exp(-apart) - 1 + apart, abs=1e-6)
            assert (record["advantages"][t] is not None) == learned
            assert (record["kl"][t] is not None) == (record["ratio"][t] is not None) == learned
            assert record["values"][t] == pytest.approx(float(scored.values[number, t]), rel=1e-3, abs=1e-6)


def test_ratio_and_kl_say_how_far_a_token_is_from_the_start(tmp_path: Path) -> None:
    toy_trainer(tmp_path, training={"samples_kept": 8}).train()
    by_update = {
        update: [
            r
            for s in records(tmp_path)
            if s["split"] == "train" and s["update"] == update
            for r in s["ratio"]
        ]
        for update in (1, 4)
    }
    assert set(by_update[1]) == {1.0}
    assert max(abs(ratio - 1) for ratio in by_update[4]) > 0.01


def test_a_resumed_run_writes_no_update_twice(tmp_path: Path) -> None:
    still: dict[str, Any] = {"update": {"learning_rate": 5e-3}}
    toy_trainer(tmp_path / "whole", **still).train()
    toy_trainer(tmp_path / "cut", **still, training={"updates": 3}).train()
    with (tmp_path / "cut" / "samples.jsonl").open("a") as file:
        file.write('{"update": 4, "split": "train"}\n{"update": 4, "spl')  # killed while it wrote
    toy_trainer(tmp_path / "cut", **still, training={"updates": 4}).train(resume=True)
    whole, cut = records(tmp_path / "whole"), records(tmp_path / "cut")
    # A run of 3 updates ends in an evaluation, as the other one does after its fourth.
    assert [r for r in whole if r["split"] == "train"] == [r for r in cut if r["split"] == "train"]
