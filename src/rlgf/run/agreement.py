"""What all processes of a run must have in common before it begins or goes on."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

from rlgf import distributed
from rlgf.config import Config
from rlgf.errors import UserError
from rlgf.identity import moving_schedules
from rlgf.models import launcher
from rlgf.outputs import require_folder
from rlgf.run.build import Parts
from rlgf.run.checkpoint import (
    difference,
    latest_checkpoint,
    load_checkpoint,
    own_reward,
    read_reward,
    run_identity,
)
from rlgf.run.guide_usage import budgets
from rlgf.run.progress import Progress
from rlgf.states import copied, digest, read_back


def checkpoint_of(folder: Path, resume: bool) -> Path | None:
    """The checkpoint to go on from.

    Raises:
        UserError: the folder holds a run that is not to be gone on with, or cannot be.
    """
    checkpoint = latest_checkpoint(folder / "checkpoints")
    if checkpoint is None and (folder / "summary.json").exists():
        raise UserError(
            f"{folder} holds a finished run without checkpoints, which cannot go on: set another 'output'."
        )
    if checkpoint is not None and not resume:
        raise UserError(
            f"{folder} already holds a run: --resume, in Python train(resume=True), goes on with it; or set another 'output'."
        )
    return checkpoint


def require_output(folder: Path, resume: bool) -> None:
    """What can be said of a run's folder before models load.

    Raises:
        UserError: it cannot be written, or holds a run that is not to be gone on with, or cannot be.
    """
    if os.environ.get("RANK", "0") == "0":  # of several processes the main one writes, and speaks
        require_folder(folder, "'output'")
        checkpoint_of(folder, resume)


def restore(checkpoint: Path | None, config: Config, parts: Parts, start: Progress) -> Progress:
    """Bring all processes to where the main process's checkpoint is. They need not share a disk, unless they share
    the weights, of which each then reads its own part.

    Args:
        checkpoint: None where there is none, and in all processes but the main one.
        start: the progress of a run that has no checkpoint.

    Raises:
        UserError: the checkpoint cannot be gone on with.
    """
    progress, updater, assessor = start, parts.updater, parts.assessor
    if checkpoint is not None and not launcher.wanted():
        progress = load_checkpoint(checkpoint, updater, run_identity(config, parts), assessor)
    found = distributed.gathered(checkpoint)[0]
    if found is not None and launcher.wanted():
        require_shared_disk(found / "manifest.json")
        progress = load_checkpoint(found, updater, run_identity(config, parts), assessor)
    elif found is not None:
        reward = read_reward(checkpoint) if checkpoint is not None else None
        state = distributed.from_main(
            (asdict(progress), updater.moved, updater.optimizer.state_dict(), reward)
        )
        if not distributed.is_main():
            told, weights, optimizer, reward = state
            progress = Progress.of(told)
            updater.put_back(weights, optimizer)
            assessor.load_state_dict(own_reward(reward))
    if not launcher.wanted():
        distributed.same(
            "weights",
            lambda: digest([parts.policy.model.state_dict(), updater.moved])[:16],
            "give each process the same files under 'policy.model'",
        )
    if progress.update == 0:
        # What could not be read again shows before it is needed.
        assessor.load_state_dict(read_back(copied(assessor.state_dict())))
    return progress


def agree_on_settings(config: Config, parts: Parts) -> None:
    """
    Raises:
        UserError: another process was given another recipe or other data.
    """
    own = {
        **config.identity,
        "training": config.training.model_dump(mode="json"),
        "evaluation": config.evaluation.model_dump(mode="json"),
    }
    for number, other in enumerate(distributed.gathered(own)):
        found = difference(own, other)
        if found is not None:
            key, mine, theirs = found
            raise UserError(
                f"the processes have different recipes: '{key}' is {mine!r} in process {distributed.rank()} and "
                f"{theirs!r} in process {number}; start all with the same."
            )
    distributed.same("training data", lambda: parts.data, "give each process the same files")


def require_shared_disk(written: Path) -> None:
    """
    Args:
        written: a file that the main process wrote.

    Raises:
        UserError: the processes share the weights, so that each writes a part of a checkpoint, and one of them does not
            find the file.
    """
    if not launcher.wanted():
        return
    distributed.gathered(None)
    missing = [number for number, there in enumerate(distributed.gathered(written.exists())) if not there]
    if missing:
        raise UserError(
            f"process {missing[0]} does not see {written}, which process 0 wrote: with FSDP each process writes its part "
            "of a checkpoint, so set 'output' to a folder on a disk that all of them share."
        )


def note_on_length(progress: Progress, config: Config) -> str | None:
    """What it means that a run is resumed with another number of updates.

    Raises:
        UserError: more updates are finished than the run is to have.
    """
    updates = config.training.updates
    if progress.update > updates:
        raise UserError(
            f"'training.updates' is {updates}, and the checkpoint has finished {progress.update}: raise it, or choose "
            "another output folder."
        )
    if progress.planned in (0, updates):
        return None
    moving = moving_schedules(config)
    follow = f"; {', '.join(moving)} from here on as in a run of {updates}" if moving else ""
    return f"The run had {progress.planned} updates and now has {updates}{follow}."


def asked_again(progress: Progress, config: Config) -> str | None:
    """Let a run that went on without its guide ask it again where it has another budget, and say so."""
    if not progress.unguided or progress.budgets in ([], budgets(config)):
        return None
    progress.unguided = False
    return "'guide.budget' is another one than was spent: the guide is asked again."
