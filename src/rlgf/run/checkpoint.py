"""Checkpoints: complete, written aside and renamed, checked before they are read."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from rlgf import distributed
from rlgf.errors import UserError
from rlgf.learning.assessor import Assessor
from rlgf.learning.updater import Updater
from rlgf.loads import loading
from rlgf.models import sharding
from rlgf.models.language_model import LanguageModel
from rlgf.run.start import write_start
from rlgf.run.training_state import read_training_state, write_training_state
from rlgf.states import digest, write_state

_FORMAT = "rlgf-checkpoint-4"
_KEPT = 2
_BY_PROCESS = "by_process"


@dataclass
class Progress:
    """What a run knows besides weights. Random numbers follow from `update`."""

    update: int = 0
    """Updates that are done."""
    samples: int = 0
    """Samples of the training data that these have used."""
    kl_coefficients: dict[str, float] = field(default_factory=dict)
    """The coefficient of the KL penalty of each row that has run, by the row's name."""
    policy_tokens: int = 0
    """Tokens that the policy sampled in training, also for texts that were dropped."""
    guide_tokens: int = 0
    """Tokens that the guide wrote in training, with those that were cut off; its own where it counts them,
    else the policy's."""
    seconds: float = 0.0
    guide_accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each remote guide was asked, see `rlgf.guides.Usage`."""
    unguided: bool = False
    """Whether the guide's budget is spent and the run goes on without it."""
    planned: int = 0
    """How many updates the run was to have."""
    validation_due: bool = False
    """Whether the evaluation after the last update has yet to be made."""


def save_checkpoint(
    root: Path,
    updater: Updater,
    progress: Progress,
    config: Mapping[str, Any],
    reward: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint of everything that a resumed run needs, then drop all but the newest two.

    Where processes share the weights, all write it together, on a disk that they share too.

    Args:
        reward: the state of the run's `Assessor`.

    Raises:
        UserError: The disk is full, or the reward's state could not be read again; earlier checkpoints are
            untouched.
    """
    final = root / f"{progress.update:06d}"
    together = sharding.wanted()
    first = distributed.is_main() or not together
    # Where the main process is gone, others may write at the same time.
    apart = f"-{distributed.rank()}" if distributed.rank() and not together else ""
    aside = root / f".writing-{progress.update:06d}{apart}"
    with _removed_on_failure(aside), full_disk_named(root, f"the checkpoint of update {progress.update}"):
        if first:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
        if together:
            distributed.gathered(None)
        save_policy(updater.policy, aside / "policy")
        write_training_state(updater, aside)
        if together:
            distributed.gathered(None)
        if first:
            write_start(aside / "policy", config.get("policy", {}))
            write_state(reward or {}, aside / "reward.pt")
            (aside / "progress.json").write_text(json.dumps(asdict(progress)))
            (aside / "config.json").write_text(json.dumps(config))
            manifest = {"format": _FORMAT, "files": _digests(aside)}
            (aside / "manifest.json").write_text(json.dumps(manifest))
            _flush(aside)
            _put_in_place(aside, final)
    if first:
        for old in _folders(root)[:-_KEPT]:
            shutil.rmtree(old)
    if together:
        distributed.gathered(None)
    return final


@contextmanager
def full_disk_named(folder: Path, what: str) -> Iterator[None]:
    """Turn a write that fails for want of space into one sentence.

    Raises:
        UserError: the disk is full.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # Libraries hide the cause of a failed write behind errors of their own.
        if "No space left" in str(error) or shutil.disk_usage(folder.parent).free < 2**20:
            raise UserError(
                f"the disk is full: {what} could not be written to {folder}; earlier checkpoints are "
                "untouched: free some space and run with --resume."
            ) from error
        raise


@contextmanager
def _removed_on_failure(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def save_policy(policy: LanguageModel, folder: Path) -> None:
    """Write a policy as plain `transformers` files; an adapter as an adapter.

    Called by the process that writes; where they share the weights, by all of them, and the main one writes.
    """
    weights = None
    if not sharding.is_whole(policy.model):
        own = policy.model.state_dict(keep_vars=True)
        if policy.adapters is not None:
            own = policy.adapters.part_of(own)
        weights = sharding.joint_state(own)
        if not distributed.is_main():
            return
    if policy.adapters is not None:
        policy.adapters.save(folder, weights)
    else:
        policy.model.save_pretrained(folder, state_dict=weights)
    policy.tokenizer.save_pretrained(folder)


def latest_checkpoint(root: Path) -> Path | None:
    folders = _folders(root)
    return folders[-1] if folders else None


def load_checkpoint(
    folder: Path, updater: Updater, config: Mapping[str, Any], assessor: Assessor | None = None
) -> Progress:
    """Read a checkpoint into the updater's policy, critics and optimizer, and the assessor's reward.

    Raises:
        UserError: It is corrupt, not one of ours, or of a run with another configuration.
    """
    with loading(f"checkpoint {folder}", folder):
        _verify(folder)
        _same_config(folder, json.loads((folder / "config.json").read_text()), config)
        return _read(folder, updater, assessor)


def _read(folder: Path, updater: Updater, assessor: Assessor | None) -> Progress:
    model, adapters = updater.policy.model, updater.policy.adapters
    # Of weights that processes share, the main one gives each its part.
    reads = sharding.is_whole(model) or distributed.is_main()
    if adapters is not None:
        adapters.load(folder / "policy", reads=reads)
    else:
        saved = {}
        if reads:
            saved = type(model).from_pretrained(folder / "policy", dtype=model.dtype).state_dict()
        sharding.load(model, saved)
    read_training_state(updater, folder)
    if assessor is not None:
        assessor.load_state_dict(own_reward(read_reward(folder)))
    return Progress(**json.loads((folder / "progress.json").read_text()))


_ADVICE = "delete {folder} to go back to the checkpoint before it, or start over in another output folder"


def read_reward(folder: Path) -> dict[str, Any]:
    """What a checkpoint holds of the reward, for `own_reward`."""
    state: dict[str, Any] = torch.load(folder / "reward.pt", weights_only=True, map_location="cpu")
    return state


def joint_reward(own: dict[str, Any] | None) -> dict[str, Any] | None:
    """The reward's state, or that of each process where they differ, as those of a reward that counts its texts
    do; called by all processes.

    Args:
        own: None where a process has none to give; each then keeps its own.
    """
    if distributed.count() == 1:
        return own
    digests = distributed.gathered(None if own is None else digest(own))
    if None in digests or len(set(digests)) == 1:
        return own
    return {_BY_PROCESS: distributed.gathered(own)}


def own_reward(state: dict[str, Any]) -> dict[str, Any]:
    """This process's part of what `joint_reward` made.

    Raises:
        UserError: it was made by another number of processes.
    """
    if _BY_PROCESS not in state:
        return state
    states: list[dict[str, Any]] = state[_BY_PROCESS]
    if len(states) != distributed.count():
        raise UserError(
            f"the checkpoint holds a state of the reward for each of {len(states)} processes, which differ: resume "
            f"with as many (there are {distributed.count()}), or let the reward's state not depend on its share of the texts."
        )
    return states[distributed.rank()]


def _verify(folder: Path) -> None:
    advice = _ADVICE.format(folder=folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} is not a checkpoint that rlgf wrote (no readable manifest); {advice}."
        ) from error
    if (
        not isinstance(manifest, dict)
        or manifest.get("format") != _FORMAT
        or not isinstance(manifest.get("files"), dict)
    ):
        raise UserError(f"{folder} is not a checkpoint of this version ({_FORMAT}); {advice}.")
    found = _digests(folder)
    for name, written in manifest["files"].items():
        if found.get(name) != written:
            raise UserError(
                f"the checkpoint {folder} is corrupt: its file {name} is missing or has changed; {advice}."
            )


def _same_config(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    found = difference(old, new)
    if found is not None:
        key, was, now = found
        raise UserError(
            f"the checkpoint {folder} belongs to a run with another '{key}': it was {was!r} and now is {now!r}; "
            "resume with the old value or choose another output folder."
        )


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The dotted key of the first setting that differs, and its two values."""
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key), new.get(key)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            deeper = difference(was, now)
            if deeper is not None:
                return f"{key}.{deeper[0]}", *deeper[1:]
        elif was != now:
            return key, was, now
    return None


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.glob("*") if p.is_dir() and re.fullmatch(r"\d{6,}", p.name))


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def _digest(path: Path) -> str:
    # In pieces: a file may be larger than the memory that is left.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(folder: Path) -> None:
    """Make sure the data and the names of the files are on the disk before the rename can be."""
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _put_in_place(aside: Path, final: Path) -> None:
    """Rename a whole checkpoint to its name, and make sure that the name is on the disk."""
    replaced = final.with_name(f".replaced-{final.name}")
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():
        final.rename(replaced)
    aside.rename(final)
    _sync(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
