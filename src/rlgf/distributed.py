"""One run in several processes: each collects a share of the episodes and learns from a share of every step.

Start them with ``torchrun`` or ``accelerate launch``. Every process holds the whole model, or its share of it
(`rlgf.models.sharding`); what an update learns does not depend on how many there are.

All processes go through the same exchanges in the same order, and every exchange carries either what it is for
or the failure of a process that will not get any further (`tell`). So a failure anywhere, at any moment, is
known everywhere at the next exchange, and nobody waits for somebody who is gone. Who dies without a word breaks
the connection, or is missed after the time-out.
"""

from __future__ import annotations

import atexit
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from rlgf.errors import FailedElsewhereError, LostProcessError, UserError, one_line
from rlgf.states import mapped


@dataclass
class _Link:
    """How this process is joined to the others."""

    seconds: float = 1800.0
    group: Any = None
    """On the CPU also where gradients are summed on GPUs: there a lost process would abort the others."""
    told: BaseException | None = None
    unheard: BaseException | None = None
    """What failed in the midst of exchanges in which nobody can be told anything; see `in_touch`."""
    alike: int = 0
    """How often that was."""
    mesh: DeviceMesh | None = None


_link = _Link()

_PATIENCE = 20.0
"""Seconds that a process which failed where nobody hears it waits for others that may have failed alike."""

_OF_CONNECTION = re.compile(r"gloo|NCCL|ProcessGroup|[Cc]onnection (closed|reset)|[Tt]imed out")


@cache
def _state() -> PartialState:
    on_cpu = not torch.cuda.is_available()
    # Without a GPU the launcher's processes are joined only where the CPU is asked for.
    with in_touch(computes=True):
        state = PartialState(cpu=on_cpu, timeout=timedelta(seconds=_link.seconds))
    # A thread of gloo that still holds a tensor while the interpreter ends aborts the process:
    # https://github.com/pytorch/pytorch/issues/190489.
    atexit.register(part if on_cpu else _leave_group)
    return state


def device() -> torch.device:
    """This process's GPU, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    found = _state().device
    return torch.device("cuda", torch.cuda.current_device()) if found.index is None else found


def join(seconds: float) -> None:
    """Meet the other processes; called by all of them.

    Args:
        seconds: how long one process waits for another before it takes it for lost.
    """
    if _link.group is None or seconds != _link.seconds:
        _link.seconds = seconds
        if count() > 1:
            with in_touch():
                _link.group = dist.new_group(backend="gloo", timeout=timedelta(seconds=seconds))


def part() -> None:
    """Leave the others for good; nothing can be exchanged any more."""
    if dist.is_initialized():
        if torch.cuda.is_available():
            # To destroy the groups of NCCL can take processes that are gone.
            dist.distributed_c10d._abort_process_group()
        else:
            dist.destroy_process_group()
    # The threads of a group end with the last who knows it.
    _link.group = _link.mesh = None


def _leave_group() -> None:
    """Leave the group on the CPU alone: to destroy those of NCCL can take processes that are gone."""
    if _link.group is not None and dist.is_initialized():
        dist.destroy_process_group(_link.group)
    _link.group = None


def count() -> int:
    return int(_state().num_processes)


def launched() -> int:
    """How many processes the launcher says that there are: `count`, which joins them, where they are joined."""
    return count() if _link.group is not None else int(os.environ.get("WORLD_SIZE", "1"))


def require_one(what: str) -> None:
    """
    Raises:
        UserError: the launcher has started several processes, each of which would do all of it and write the same files.
    """
    if launched() > 1:
        raise UserError(
            f"{what} runs in one process, and there are {launched()}: start it without a launcher."
        )


def together() -> int:
    """How many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", str(launched())))


def rank() -> int:
    return int(_state().process_index)


def is_main() -> bool:
    """Whether this process is the one that writes and shows."""
    return bool(_state().is_main_process)


def mesh(shares: int) -> DeviceMesh:
    """All processes, joined on the device that computes: in a row, or in rows of ``shares``."""
    if _link.mesh is None:
        kind = "cuda" if torch.cuda.is_available() else "cpu"
        wait = timedelta(seconds=_link.seconds)
        if shares == count():
            _link.mesh = DeviceMesh.from_group(dist.new_group(timeout=wait), kind)
        else:
            rows = torch.arange(count()).reshape(-1, shares)
            across, along = (
                dist.new_subgroups_by_enumeration(lines.tolist(), timeout=wait)[0] for lines in (rows.T, rows)
            )
            names = ("copies", "shares")
            _link.mesh = DeviceMesh.from_group([across, along], kind, mesh=rows, mesh_dim_names=names)
    return _link.mesh


def portion(total: int) -> range:
    """The numbers, out of ``range(total)``, that this process takes. All processes together take each number once."""
    bounds = [total * number // count() for number in range(count() + 1)]
    return range(bounds[rank()], bounds[rank() + 1])


def share(total: int) -> range:
    """The prompts of an update that this process takes, see `portion`.

    Raises:
        UserError: there are fewer than processes.
    """
    if total < count():
        raise UserError(
            f"an update has {total} prompts for {count()} processes: raise 'rollout.episodes' or start fewer."
        )
    return portion(total)


def every_nth(rows: Tensor) -> Tensor:
    """The entries that this process takes, dealt out one by one."""
    return rows[rank() :: count()]


def gathered(item: Any) -> list[Any]:
    """Every process's item, in the order of the processes.

    Raises:
        FailedElsewhereError: another process failed instead of giving its own.
        LostProcessError: another process is gone.
    """
    if count() == 1:
        return [item]
    found = _exchange(item, None)
    for number, (failure, _) in enumerate(found):
        if failure is not None:
            raise FailedElsewhereError(_failed(number, failure))
    return [given for _, given in found]


def tell(error: BaseException) -> None:
    """Let the others know, in the place of the next exchange, that this process has failed.

    Does nothing for a failure that they know of.

    Raises:
        FailedElsewhereError: a process before this one failed at the same moment, and is the one to say why.
        LostProcessError: another process is gone, or cannot hear of it.
    """
    if count() == 1 or error is _link.told or isinstance(error, FailedElsewhereError | LostProcessError):
        return
    _link.told = error
    if error is _link.unheard:
        _await_alike()
    said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    found = _exchange(None, " ".join(said.split())[:500])
    first, reason = next(
        (number, failure) for number, (failure, _) in enumerate(found) if failure is not None
    )
    if first != rank():
        raise FailedElsewhereError(_failed(first, reason)) from error


def _await_alike() -> None:
    """Wait until all processes have failed where none hears another.

    Raises:
        LostProcessError: one of them has not. It waits for this one, and knows once this one is gone.
    """
    _link.alike += 1
    came = [f"rlgf failed {_link.alike} {number}" for number in range(count())]
    with in_touch():
        store = dist.distributed_c10d._get_default_store()
        store.set(came[rank()], "")
        store.wait(came, timedelta(seconds=min(_PATIENCE, _link.seconds)))


@contextmanager
def one_fate() -> Iterator[None]:
    """Where one process fails in the block, all do.

    Raises:
        FailedElsewhereError: another process failed.
        LostProcessError: another process is gone.
    """
    try:
        yield
    except BaseException as error:
        tell(error)
        raise


@contextmanager
def main_first() -> Iterator[None]:
    """The main process goes through the block before the others, which then find what it has cached."""
    if not is_main():
        gathered(None)
    yield
    if is_main():
        gathered(None)
    gathered(None)


def same(what: str, value: Callable[[], Any], remedy: str) -> None:
    """Make sure that all processes have the same of something; one alone is not asked for it.

    Raises:
        UserError: they do not.
    """
    if count() == 1:
        return
    values = gathered(value())
    for number, other in enumerate(values):
        if other != values[0]:
            raise UserError(
                f"the processes do not have the same {what}: process 0 has {values[0]} and process {number} has {other}; "
                f"{remedy}."
            )


def group() -> Any:
    """All processes, joined on the CPU."""
    if _link.group is None:
        join(_link.seconds)
    return _link.group


def _exchange(item: Any, failure: str | None) -> list[tuple[str | None, Any]]:
    found: list[Any] = [None] * count()
    with in_touch():
        dist.all_gather_object(found, (failure, item), group=group())
    return found


@contextmanager
def in_touch(*, computes: bool = False, unheard: bool = False) -> Iterator[None]:
    """
    Args:
        computes: whether the block also computes, so that not every error is one of a connection.
        unheard: whether processes wait for one another in it where none can tell the others that it has failed.

    Raises:
        LostProcessError: instead of the error of a broken or silent connection.
    """
    try:
        yield
    except BaseException as error:
        broken = isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError)
        of_connection = isinstance(error, dist.DistError) or _OF_CONNECTION.search(str(error))
        if not broken or (computes and not of_connection):
            _link.unheard = error if unheard else _link.unheard
            raise
        reason = one_line(error, 200)
        raise LostProcessError(
            f"another process of the run has ended without a word, or was silent for {_link.seconds:.0f} s "
            f"('training.process_timeout'); the connection says: {reason}. See what that process wrote last."
        ) from error


def _failed(number: int, failure: str) -> str:
    return f"process {number} of {count()} failed: {failure}"


def from_main(state: Any) -> Any:
    """The main process's nested state, its tensors on the CPU; what the others give is not read."""
    if count() == 1:
        return state
    # Their shapes first, since what is sent as an object is copied on the way.
    shapes = mapped(lambda tensor: torch.empty_like(tensor, device="meta"), state, Tensor)
    frame = gathered(shapes if is_main() else None)[0]
    found: list[Tensor] = []
    mapped(found.append, state if is_main() else frame, Tensor)
    if is_main():
        tensors = [tensor.detach().cpu().contiguous() for tensor in found]
    else:
        tensors = [torch.empty(tensor.shape, dtype=tensor.dtype) for tensor in found]
    gathered(None)
    # From here on nothing can fail in one process alone.
    with in_touch():
        for tensor in tensors:
            dist.broadcast(tensor, src=0, group=group())
    sent = iter(tensors)
    return mapped(lambda _: next(sent), frame, Tensor)


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Add up every process's gradients in place; those that no process has stay as they are.

    Those of weights that the processes share are summed as they are computed, and not here.
    """
    if count() == 1:
        return
    every = [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
    # An optimizer passes over a parameter without a gradient, and moves one with a gradient of 0.
    having = [any(flags) for flags in zip(*gathered([p.grad is not None for p in every]), strict=True)]
    gradients = []
    for parameter, has in zip(every, having, strict=True):
        if has:
            there = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = there.contiguous()
            gradients.append(parameter.grad)
    gathered(None)
    # From here on nothing can fail in one process alone. All are under way at once, each in its place.
    with in_touch():
        sums = [
            dist.all_reduce(gradient, group=group() if gradient.device.type == "cpu" else None, async_op=True)
            for gradient in gradients
        ]
        for one in sums:
            one.wait()


def sum_numbers(numbers: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add up every process's numbers, name by name."""
    found = gathered(numbers)
    names: Sequence[str] = sorted({name for one in found for name in one})
    return {name: sum((one[name] for one in found if name in one), torch.zeros(())) for name in names}
