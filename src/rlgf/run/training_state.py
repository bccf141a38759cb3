"""The critics and the optimizer in a checkpoint, written and read by `torch.distributed.checkpoint`.

Processes that share the weights each write their own part. Any number of them reads it again, sharing the weights or
not, since a reader takes of each tensor what it has a place for. The files are safetensors, so reading them runs no
code.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from rlgf import distributed
from rlgf.learning.updater import Updater
from rlgf.models import launcher

_TENSORS = "state"
_REST = "optimizer.pt"


def write_training_state(updater: Updater, folder: Path) -> None:
    """Write what an updater trains besides its policy; called by all processes where they share the weights."""
    state = updater.optimizer.state_dict()
    tensors = _of_models(updater)
    rest: dict[int, dict[str, Any]] = {}
    for number, of_parameter in state["state"].items():
        rest[number] = {}
        for name, value in of_parameter.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{number}.{name}"] = value
            else:
                rest[number][name] = value
    if tensors:
        with _checkpointing():
            writer = HuggingFaceStorageWriter(str(folder / _TENSORS), save_distributed=True)
            save(tensors, storage_writer=writer, **_together())
    if distributed.is_main() or not launcher.wanted():
        torch.save({"param_groups": state["param_groups"], "state": rest}, folder / _REST)


def read_training_state(updater: Updater, folder: Path) -> None:
    """Read what `write_training_state` wrote, by whichever number of processes."""
    # To the CPU, since the device that wrote it need not be there; the optimizer moves its state to its weights.
    optimizer = torch.load(folder / _REST, weights_only=True, map_location="cpu")
    tensors = _of_models(updater)
    places: dict[str, tuple[int, str]] = {}
    if (folder / _TENSORS).is_dir():
        reader = HuggingFaceStorageReader(str(folder / _TENSORS))
        with _checkpointing():
            for key, stored in reader.read_metadata().state_dict_metadata.items():
                kind, number, name = key.split(".", maxsplit=2)
                if kind == "optimizer":
                    assert isinstance(stored, TensorStorageMetadata), "safetensors hold nothing else"
                    index = int(number)
                    places[key] = index, name
                    tensors[key] = _like(updater.trained[index], stored)
            load(tensors, storage_reader=reader, **_together())
    for key, (index, name) in places.items():
        optimizer["state"].setdefault(index, {})[name] = tensors[key]
    updater.optimizer.load_state_dict(optimizer)


def _like(parameter: torch.nn.Parameter, stored: TensorStorageMetadata) -> Tensor:
    """A place for an optimizer's tensor: a moment is shared as its weight is, a count of steps is everybody's."""
    dtype = stored.properties.dtype
    if stored.size == parameter.shape:
        return torch.zeros_like(parameter, dtype=dtype).detach()
    return torch.zeros(stored.size, dtype=dtype)


def _of_models(updater: Updater) -> dict[str, Tensor]:
    """The critics' own tensors, one name for each: a weight that is tied to another is written, and read, once; and a
    guide's that follows the policy."""
    found = {f"guide.moving.{number}": tensor.detach() for number, tensor in enumerate(updater.following)}
    for name, critic in updater.critics.items():
        seen: set[int] = set()
        for key, tensor in critic.state_dict(keep_vars=True).items():
            if id(tensor) not in seen:
                seen.add(id(tensor))
                found[f"critic.{name}.{key}"] = tensor.detach()
    return found


def _together() -> dict[str, Any]:
    return {"process_group": distributed.group()} if launcher.wanted() else {"no_dist": True}


@contextmanager
def _checkpointing() -> Iterator[None]:
    """Let an error come as itself, and not within a list of what each process met."""
    try:
        with warnings.catch_warnings(), distributed.in_touch(computes=True):
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            yield
    except CheckpointException as error:
        raise next(iter(error.failures.values()))[0] from error
