"""Checkpoints are checked before they are read; a torn, foreign or unfitting one is one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from resuming import CHANGED, checkpoints, digests, equal, refusal, state
from transformers import AutoModelForCausalLM, AutoTokenizer

from resume_script import toy_trainer
from rlgf.run.trainer import Trainer


def test_the_newest_two_checkpoints_are_kept(tmp_path: Path) -> None:
    toy_trainer(tmp_path / "run", training={"checkpoint_every": 1}).train()
    assert checkpoints(tmp_path / "run") == ["000003", "000004"]


def test_a_folder_that_holds_a_run_is_left_alone(run: Path) -> None:
    before = digests(run)
    message = refusal(toy_trainer(run, **CHANGED), resume=False)
    assert str(run) in message
    assert "already holds a run: --resume" in message
    assert digests(run) == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_finished_run_without_its_checkpoints_is_left_alone(run: Path, resume: bool) -> None:
    shutil.rmtree(run / "checkpoints")
    before = digests(run)
    assert "holds a finished run without checkpoints" in refusal(toy_trainer(run), resume=resume)
    assert digests(run) == before


@pytest.mark.parametrize("harm", ["flip a byte", "remove"])
def test_a_file_that_has_changed_is_named(run: Path, harm: str) -> None:
    folder = run / "checkpoints" / "000004"
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert {"model.safetensors", "optimizer.pt", "shard-00001-model-00001-of-00001.safetensors"} < {
        path.name for path in files
    }
    trainer = toy_trainer(run)
    untrained = state(trainer)
    for path in files:
        whole = path.read_bytes()
        if harm == "remove":
            path.unlink()
        else:
            middle = len(whole) // 2
            path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        message = refusal(trainer)
        assert f"the checkpoint {folder} is corrupt: its file {path.relative_to(folder)}" in message
        assert f"delete {folder} to go back to the checkpoint before it" in message
        path.write_bytes(whole)
    assert equal(state(trainer), untrained), "nothing of a corrupt checkpoint is used"
    shutil.rmtree(folder)
    trainer.train(resume=True)


@pytest.mark.parametrize(
    "manifest",
    [
        None,
        "",
        "{",
        "[]",
        '{"format": "other"}',
        '{"format": "rlgf-checkpoint-2", "fibes": {}}',
    ],
)
def test_a_foreign_folder_is_no_checkpoint(run: Path, manifest: str | None) -> None:
    folder = run / "checkpoints" / "000009"
    folder.mkdir()
    if manifest is not None:
        (folder / "manifest.json").write_text(manifest)
    message = refusal(toy_trainer(run))
    assert f"{folder} is not a checkpoint" in message
    assert f"delete {folder}" in message


def test_a_checkpoint_of_another_configuration_is_refused(run: Path) -> None:
    message = refusal(toy_trainer(run, **CHANGED))
    assert "belongs to a run with another 'update" in message
    assert "resume with the old value or choose another output folder" in message


def test_the_setting_that_differs_is_named(run: Path) -> None:
    message = refusal(toy_trainer(run, **CHANGED))
    assert "another 'update.epochs': it was 2 and now is 3" in message


def test_a_refused_resume_changes_nothing(run: Path) -> None:
    before = digests(run)
    refusal(toy_trainer(run, **CHANGED))
    assert digests(run) == before


def test_the_saved_policy_is_a_plain_model_that_writes_the_same(finished: Trainer) -> None:
    folder = finished.config.folder / "policy"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    policy = finished.parts.policy
    for prompt in ("a", "cab", "dd"):
        inputs = tokenizer(prompt, return_tensors="pt")
        assert inputs["input_ids"][0].tolist() == policy.encode(prompt)
        options = {"max_new_tokens": 12, "do_sample": False, "attention_mask": inputs["attention_mask"]}
        loaded = model.generate(inputs["input_ids"], **options)
        assert loaded.tolist() == policy.model.generate(inputs["input_ids"], **options).tolist()
        assert tokenizer.decode(loaded[0], skip_special_tokens=True) == policy.decode(loaded[0].tolist())
    assert equal(model.state_dict(), policy.model.state_dict())


def test_an_output_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(toy_trainer(tmp_path / "file" / "run"))
