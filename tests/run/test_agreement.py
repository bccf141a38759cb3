"""What must be the same before a run goes on, and what may change."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import equal, state

from resume_script import toy_trainer
from rlgf.errors import UserError
from rlgf.run import agreement
from rlgf.run.agreement import require_output, restore
from rlgf.run.checkpoint import latest_checkpoint
from rlgf.run.whole_folder import digests
from rlgf.states import copied
from rlgf.tasks.chats import Prompted
from rlgf.types import Sample
from toys import sentence_of


def test_a_run_whose_schedules_do_not_move_is_extended_to_what_a_longer_one_is(tmp_path: Path) -> None:
    steady = {"update": {"learning_rate": {"start": 5e-3, "end": 5e-3}}}
    long = toy_trainer(tmp_path / "long", **steady)
    long.train()
    toy_trainer(tmp_path / "short", **steady, training={"updates": 2}).train()
    extended = toy_trainer(tmp_path / "short", **steady)
    extended.train(resume=True)
    assert equal(state(extended), state(long))


def test_a_process_without_the_checkpoint_gets_the_guide_that_follows_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {
        "guide": {"self": "average", "decay": 0.5},
        "algorithm": "opsd",
        "rollout": {"episodes": 8, "max_prompt_tokens": 4, "max_response_tokens": 6, "max_hint_tokens": 14},
        "evaluation": {"samples": 2, "test_samples": 2},
    }
    toy_trainer(tmp_path, **changes, training={"updates": 2}).train()
    main, other = (toy_trainer(tmp_path, **changes) for _ in range(2))
    checkpoint = latest_checkpoint(tmp_path / "checkpoints")
    sent: list[Any] = []
    monkeypatch.setattr(agreement.distributed, "from_main", lambda state: sent.append(copied(state)) or state)
    restore(checkpoint, main.config, main.parts, main.progress)
    monkeypatch.setattr(agreement.distributed, "from_main", lambda state: sent[0])
    monkeypatch.setattr(agreement.distributed, "is_main", lambda: False)
    monkeypatch.setattr(agreement.distributed, "gathered", lambda item: [checkpoint, checkpoint])
    restore(None, other.config, other.parts, other.progress)
    pairs = list(zip(main.parts.updater.moved, other.parts.updater.moved, strict=True))
    assert len(pairs) > len(main.parts.updater.trained)
    assert all(torch.equal(*pair) for pair in pairs)


def test_a_longer_run_says_which_schedules_move(tmp_path: Path) -> None:
    toy_trainer(tmp_path, training={"updates": 2}).train()
    extended = toy_trainer(tmp_path)
    said: list[str] = []
    extended.display.note = said.append
    extended.train(resume=True)
    assert extended.progress.update == 4
    assert "The run had 2 updates and now has 4; update.learning_rate from here on as in a run of 4." in said


def test_a_run_cannot_have_fewer_updates_than_are_finished(tmp_path: Path) -> None:
    toy_trainer(tmp_path).train()
    with pytest.raises(UserError, match=r"'training.updates' is 3, and the checkpoint has finished 4"):
        toy_trainer(tmp_path, training={"updates": 3}).train(resume=True)


def test_a_run_is_not_gone_on_with_on_other_data(run: Path) -> None:
    resumed = toy_trainer(run)
    other = [*resumed.parts.train]
    one = other[5]
    for changed in (
        Sample("other"),
        replace(one, rejected="worse"),
        replace(one, columns={**one.columns, "answer": {"is": 7.0}}),
    ):
        other[5] = changed
        resumed.parts = replace(
            resumed.parts, train=Prompted(other, lambda: pytest.fail("no chats"), "train")
        )
        with pytest.raises(
            UserError, match=r"another 'training data': it was '64 samples .* \(.*\)' and now is '64 sam"
        ):
            resumed.train(resume=True)


@pytest.mark.parametrize("said", [None, "64 samples (0123456789abcdef)"])
def test_earlier_checkpoints_do_not_say_all_that_they_learned_from(run: Path, said: str | None) -> None:
    config = run / "checkpoints" / "000004" / "config.json"
    settings = json.loads(config.read_text())
    del settings["training data"]
    config.write_text(json.dumps(settings | ({} if said is None else {"training data": said})))
    manifest = config.with_name("manifest.json")
    told = json.loads(manifest.read_text())
    told["files"]["config.json"] = digests(config.parent)["config.json"]
    manifest.write_text(json.dumps(told))
    toy_trainer(run).train(resume=True)


def test_objects_in_columns_are_known_by_their_kind(run: Path) -> None:
    """Their addresses differ in every process."""
    parts = toy_trainer(run).parts

    def marked(value: object) -> str:
        rows = [replace(one, columns={"it": value}) for one in parts.train]
        return replace(parts, train=Prompted(rows, lambda: pytest.fail("no chats"), "train")).data

    assert marked(object()) == marked(object()) != marked({"a": float("nan")})


def test_a_folder_that_cannot_be_the_runs_is_refused_before_models_load(run: Path, tmp_path: Path) -> None:
    require_output(run, resume=True)
    require_output(tmp_path / "new" / "er", resume=False)
    (tmp_path / "file").touch()
    for folder, said in (
        (run, "already holds a run: --resume, in Python train(resume=True), goes on with it"),
        (tmp_path / "file", "cannot be written: Not a directory; set another 'output'"),
        (tmp_path / "file" / "in", "cannot be written: Not a directory"),
        (tmp_path / ("long" * 100), "cannot be written: File name too long"),
    ):
        assert said in sentence_of(lambda folder=folder: require_output(folder, resume=False))
