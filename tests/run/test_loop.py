"""A run that is resumed goes on as if nothing had happened."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from resuming import CASES, equal, metrics, state

from resume_script import LOLS, toy_trainer
from rlgf.report.runs import read_run
from rlgf.run import loop
from rlgf.run.trainer import Trainer


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path, name: str) -> None:
    straight = toy_trainer(tmp_path / "straight", **CASES[name])
    totals = straight.train()
    killed = shutil.copytree(tmp_path / "straight", tmp_path / "killed")
    for left in ("checkpoints/000004", "policy", "evaluation"):
        shutil.rmtree(killed / left)

    resumed = toy_trainer(killed, **CASES[name])
    untrained = state(resumed)
    assert resumed.train(resume=True) == totals
    assert equal(state(resumed), state(straight))
    assert not equal(state(resumed)["policy"], untrained["policy"])
    assert metrics(killed) == metrics(tmp_path / "straight")
    assert [line["update"] for line in metrics(killed)] == [0, 1, 2, 3, 3, 4, 4], "validations included"
    evaluations = [folder / "evaluation" / "policy.jsonl" for folder in (killed, tmp_path / "straight")]
    assert evaluations[0].read_bytes() == evaluations[1].read_bytes()


def test_the_rows_of_the_mixture_take_turns(tmp_path: Path) -> None:
    mixture, seed = toy_trainer(tmp_path, **LOLS).config.algorithm, LOLS["seed"]
    rows = [mixture.at(update, update / 4, seed).name for update in range(4)]
    assert rows == ["aggrevated", "ppo++", "aggrevated", "ppo++"], "what these tests rely on"


def test_a_resume_without_a_checkpoint_starts_from_the_beginning(finished: Trainer, run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "summary.json").unlink()
    again = toy_trainer(run)
    again.train(resume=True)
    assert equal(state(again), state(finished))
    assert metrics(run) == metrics(finished.config.folder)


def test_a_finished_run_that_goes_on_has_no_results_until_its_new_end(run: Path) -> None:
    toy_trainer(run).train(resume=True)
    assert read_run(run).totals is not None, "nothing was left to do"
    longer = {"training": {"updates": 6}}
    with pytest.raises(ValueError, match="stop"):
        toy_trainer(run, in_fifth, **longer).train(resume=True)
    found = read_run(run)
    assert found.totals is None
    assert "test" not in {sample["split"] for sample in found.samples}
    toy_trainer(run, **longer).train(resume=True)
    assert read_run(run).totals is not None


def test_a_summary_that_cannot_be_written_is_not_there_in_part(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "summary.json").unlink(missing_ok=True)
    monkeypatch.setattr(loop, "to_json", lambda *given, **options: "{\ud800")
    with pytest.raises(UnicodeEncodeError):
        toy_trainer(run).train(resume=True)
    assert not (run / "summary.json").exists()


def in_fifth(update: int) -> None:
    if update == 5:
        raise ValueError("stop")


def test_what_is_measured_may_change_between_runs(finished: Trainer, run: Path) -> None:
    shutil.rmtree(run / "checkpoints" / "000004")
    resumed = toy_trainer(run, evaluation={"samples": 4}, name="other")
    resumed.train(resume=True)
    assert equal(state(resumed), state(finished))
