"""A failure in the middle of an update goes back to the last finished one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from failures import SELDOM, Remembering, goes_on, with_reward
from resuming import checkpoints, equal, state

from resume_script import toy_trainer
from rlgf.errors import UserError
from rlgf.run.memory import leaves_room
from rlgf.run.trainer import Trainer


def fail_in_pass(trainer: Trainer, number: int, error: Exception, finished: int = 2) -> None:
    """Let the policy's n-th pass with gradients fail, in the update behind so many finished ones."""
    passes = 0

    def hook(*unused: object) -> None:
        nonlocal passes
        if torch.is_grad_enabled() and trainer.progress.update == finished:
            passes += 1
            if passes == number:
                raise error

    trainer.parts.policy.model.register_forward_pre_hook(hook)


def test_a_failure_between_optimizer_steps_goes_back_to_the_last_finished_update(
    tmp_path: Path, straight: Trainer
) -> None:
    trainer = toy_trainer(tmp_path, **SELDOM)
    fail_in_pass(trainer, 3, ValueError("in the middle"))
    with pytest.raises(ValueError, match="in the middle"):
        trainer.train()
    assert checkpoints(tmp_path) == ["000002"]
    goes_on(tmp_path, straight)


def test_a_run_out_of_memory_goes_on_with_smaller_micro_batches(tmp_path: Path, straight: Trainer) -> None:
    trainer = toy_trainer(tmp_path, **SELDOM)
    fail_in_pass(trainer, 3, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    with pytest.raises(
        UserError, match=r"memory ran out in update 3 .*set 'update.max_micro_tokens'"
    ) as caught:
        trainer.train()
    assert caught.value.__notes__ == ["Saved after update 2; --resume goes on."]
    smaller = toy_trainer(
        tmp_path, **SELDOM, update={"max_micro_tokens": 20}, rollout={"max_batch_tokens": 30}
    )
    smaller.train(resume=True)
    for one, other in zip(smaller.parts.updater.trained, straight.parts.updater.trained, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_where_a_copy_would_not_fit_the_newest_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlgf.run.memory._SHARE_OF_MEMORY", 0.0)
    trainer = toy_trainer(tmp_path)
    fail_in_pass(trainer, 3, ValueError("in the middle"), finished=3)
    with pytest.raises(ValueError, match="in the middle") as caught:
        trainer.train()
    assert checkpoints(tmp_path) == ["000002"]
    (note,) = caught.value.__notes__
    assert note.startswith(
        "Update 4 was learning, and a copy of what it changes would have crowded the memory; "
    )
    assert note.endswith("The newest checkpoint is that of update 2; --resume goes on from there.")


def test_the_processes_of_a_machine_share_the_memory_for_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=800))
    assert [leaves_room(size) for size in (200, 201)] == [True, False]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert [leaves_room(size) for size in (50, 51)] == [True, False]


def test_what_a_failed_update_did_to_the_reward_is_undone(tmp_path: Path) -> None:
    whole = with_reward(tmp_path / "whole", Remembering())
    whole.train()
    failing = Remembering()
    failing.fails = True
    with pytest.raises(ValueError, match="after it has counted"):
        with_reward(tmp_path / "run", failing).train()
    resumed = with_reward(tmp_path / "run", Remembering())
    resumed.train(resume=True)
    assert equal(state(resumed), state(whole))
