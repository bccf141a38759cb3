"""Checkpoints: complete, written aside and renamed, checked before they are read."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from rlgf import distributed
from rlgf.config import Config
from rlgf.errors import UserError
from rlgf.learning.assessor import Assessor
from rlgf.learning.updater import Updater
from rlgf.loads import loading
from rlgf.models import launcher, sharding
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import processor_files
from rlgf.run.build import Parts
from rlgf.run.progress import Progress
from rlgf.run.start import write_start
from rlgf.run.training_state import read_training_state, write_training_state
from rlgf.run.whole_folder import digests, flush, full_disk_named, put_in_place, removed_on_failure
from rlgf.states import digest, write_state

_FORMAT = "rlgf-checkpoint-4"
_KEPT = 2
_DATA = "training data"


def run_identity(config: Config, parts: Parts) -> dict[str, Any]:
    """What a resumed run must have in common with the one that wrote its checkpoint: settings and training data."""
    return {**config.identity, _DATA: parts.data}


def save_checkpoint(
    root: Path,
    updater: Updater,
    progress: Progress,
    config: Mapping[str, Any],
    reward: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint of everything that a resumed run needs, then drop all but the newest two.

    ``reward`` is the state of the run's `Assessor`. Where processes share the weights, all write it together, on a disk
    that they share too.

    Raises:
        UserError: The disk is full, or the reward's state could not be read again; earlier checkpoints are
            untouched.
    """
    final = root / f"{progress.update:06d}"
    together = launcher.wanted()
    first = distributed.is_main() or not together
    # Where the main process is gone, others may write at the same time.
    apart = f"-{distributed.rank()}" if distributed.rank() and not together else ""
    aside = root / f".writing-{progress.update:06d}{apart}"
    with removed_on_failure(aside), full_disk_named(root, f"the checkpoint of update {progress.update}"):
        if first:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
        if together:
            distributed.gathered(None)
        save_policy(updater.policy, aside / "policy")
        if together:
            # Who could not write it says so here, and not in the middle of what only all can do.
            distributed.gathered(None)
        write_training_state(updater, aside)
        if together:
            distributed.gathered(None)
        if first:
            write_start(aside / "policy", config.get("policy", {}))
            write_state(reward or {}, aside / "reward.pt")
            (aside / "progress.json").write_text(json.dumps(asdict(progress)))
            (aside / "config.json").write_text(json.dumps(config))
            manifest = {"format": _FORMAT, "files": digests(aside)}
            (aside / "manifest.json").write_text(json.dumps(manifest))
            flush(aside)
            put_in_place(aside, final)
    if first:
        for old in _folders(root)[:-_KEPT]:
            # Other processes whose main one is gone do the same at the same time.
            with suppress(FileNotFoundError):
                shutil.rmtree(old)
    if together:
        distributed.gathered(None)
    return final


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
        for file in processor_files(policy.model):
            shutil.copy(file, folder)
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
    with loading(f"checkpoint {folder}", folder / "policy"):
        _verify(folder)
        _same_config(folder, json.loads((folder / "config.json").read_text()), config)
        _read_policy(folder / "policy", updater.policy)
        read_training_state(updater, folder)
        if assessor is not None:
            assessor.load_state_dict(own_reward(read_reward(folder)))
        return Progress.of(json.loads((folder / "progress.json").read_text()))


def _read_policy(folder: Path, policy: LanguageModel) -> None:
    model = policy.model
    # Of weights that processes share, the main one gives each its part.
    reads = sharding.is_whole(model) or distributed.is_main()
    if policy.adapters is not None:
        policy.adapters.load(folder, reads=reads)
    else:
        saved = type(model).from_pretrained(folder, dtype=model.dtype).state_dict() if reads else {}
        sharding.load(model, saved)


_ADVICE = "delete {folder} to go back to the checkpoint before it, or start over in another output folder"


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
    found = digests(folder)
    for name, written in manifest["files"].items():
        if found.get(name) != written:
            raise UserError(
                f"the checkpoint {folder} is corrupt: its file {name} is missing or has changed; {advice}."
            )


def _same_config(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    # Earlier checkpoints say nothing of their data, or nothing of its columns.
    told = "columns" in old.get(_DATA, "")
    found = difference(*({n: said for n, said in side.items() if n != _DATA or told} for side in (old, new)))
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
    found = (path for path in root.glob("*") if path.is_dir() and re.fullmatch(r"\d{6,}", path.name))
    return sorted(found, key=lambda path: int(path.name))


_BY_PROCESS = "by_process"


def read_reward(folder: Path) -> dict[str, Any]:
    """What a checkpoint holds of the reward, for `own_reward`."""
    state: dict[str, Any] = torch.load(folder / "reward.pt", weights_only=True, map_location="cpu")
    return state


def joint_reward(own: dict[str, Any] | None) -> dict[str, Any] | None:
    """The reward's state, or that of each process where they differ, as those of a reward that counts its texts
    do; called by all processes. Where one has none to give, each keeps its own, or none where all write together."""
    if distributed.count() == 1:
        return own
    digests = distributed.gathered(None if own is None else digest(own))
    if None in digests and launcher.wanted():
        return None
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
