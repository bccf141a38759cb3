"""States of what a run trains: copied, told apart, and made sure to be readable again."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rlgf.errors import UserError, one_line


def copied(state: Any) -> Any:
    """The same nested state, its tensors copied to the CPU, so that what trains on does not change it."""
    # From a GPU into pinned memory, without a wait for each tensor.
    found = mapped(lambda tensor: tensor.detach().to("cpu", non_blocking=True, copy=True), state, Tensor)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return found


def mapped(function: Callable[[Any], Any], state: Any, kind: type) -> Any:
    """A nested state with a function of each entry of a kind in that entry's place; dictionaries, lists
    and tuples are new ones."""
    if isinstance(state, kind):
        return function(state)
    if isinstance(state, Mapping):
        return {key: mapped(function, value, kind) for key, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(mapped(function, value, kind) for value in state)
    return state


def digest(state: Any) -> str:
    """A hash of a nested state: equal for equal bits, on whichever device they are."""
    found = hashlib.sha256()
    for piece in _pieces(state):
        found.update(piece)
    return found.hexdigest()


def _pieces(state: Any) -> Iterator[bytes | memoryview]:
    if isinstance(state, Tensor):
        yield f"{state.dtype} {tuple(state.shape)}".encode()
        flat = state.detach().to("cpu").contiguous().flatten()
        yield flat.view(torch.uint8).numpy().data
    elif isinstance(state, Mapping):
        for key, value in state.items():
            yield repr(key).encode()
            yield from _pieces(value)
    elif isinstance(state, list | tuple):
        yield f"{len(state)} entries".encode()
        for value in state:
            yield from _pieces(value)
    else:
        yield repr(state).encode()


def write_state(state: Mapping[str, Any], file: Any) -> None:
    """Save a state as `torch.load` reads it with ``weights_only``, and make sure that it does.

    ``file`` is a path, or a binary file open for reading and writing.

    Raises:
        UserError: it holds something else than tensors, numbers and texts, in dictionaries and lists.
    """
    try:
        torch.save(state, file)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UserError(_unreadable(state, error)) from error
    if isinstance(file, io.BytesIO):
        file.seek(0)
    try:
        # Mapped, so that the tensors themselves need not be read.
        torch.load(file, weights_only=True, map_location="cpu", mmap=not isinstance(file, io.BytesIO))
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise UserError(_unreadable(state, error)) from error


def read_back(state: Mapping[str, Any]) -> Any:
    """What a checkpoint would give back of a state; raises what `write_state` does."""
    file = io.BytesIO()
    write_state(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True, map_location="cpu")


def _unreadable(state: Mapping[str, Any], error: Exception) -> str:
    found = next(_strange(state, ()), None)
    reason = one_line(error, 200)
    what = f"'{found[0]}' is a {found[1]}" if found else reason
    return (
        f"the reward's state cannot be read again ({what}): let its 'state_dict()' hold tensors, numbers and texts, "
        "in dictionaries and lists."
    )


_PLAIN = (int, float, complex, str, bytes, bool, type(None))


def _strange(state: Any, place: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Where a state holds what cannot be read again, and its type."""
    if isinstance(state, Mapping) and type(state).__module__ in ("builtins", "collections"):
        for key, value in state.items():
            yield from _strange(value, (*place, key))
    elif type(state) in (list, tuple, set):
        for number, value in enumerate(state):
            yield from _strange(value, (*place, number))
    elif not isinstance(state, Tensor) and type(state) not in _PLAIN:
        names = [str(key) for key in place if key != "reward"]  # a level of rlgf's own
        yield ".".join(names), f"{type(state).__module__}.{type(state).__qualname__}"
