"""One run in several processes: each collects a share of the episodes and learns from a share of every step.

Start them with ``torchrun`` or ``accelerate launch``. Every process holds the whole model; what an
update learns does not depend on how many there are.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce
from torch import Tensor

from rlgf.errors import UserError


@cache
def _state() -> PartialState:
    on_cpu = not torch.cuda.is_available()
    # Without a GPU the launcher's processes are joined only where the CPU is asked for.
    state = PartialState(cpu=on_cpu)
    if on_cpu:
        # A thread of gloo that still holds a tensor while the interpreter ends aborts the process:
        # https://github.com/pytorch/pytorch/issues/190489.
        atexit.register(state.destroy_process_group)
    return state


def count() -> int:
    return int(_state().num_processes)


def is_main() -> bool:
    """Whether this process is the one that evaluates, writes and shows."""
    return bool(_state().is_main_process)


def share(total: int) -> range:
    """The numbers, out of ``range(total)``, that this process takes; those of all together are all of them.

    Raises:
        UserError: there are fewer than processes.
    """
    state = _state()
    if total < state.num_processes:
        raise UserError(
            f"an update has {total} prompts for {state.num_processes} processes: raise 'rollout.episodes' or "
            "start fewer."
        )
    bounds = [total * rank // state.num_processes for rank in range(state.num_processes + 1)]
    return range(bounds[state.process_index], bounds[state.process_index + 1])


@contextmanager
def main_first() -> Iterator[None]:
    """The main process goes through the block before the others, which then find what it has cached."""
    with _state().main_process_first():
        yield


def every_nth(rows: Tensor) -> Tensor:
    """The entries that this process takes, dealt out one by one."""
    state = _state()
    return rows[state.process_index :: state.num_processes]


def gathered(item: Any) -> list[Any]:
    """Every process's item, in the order of the processes."""
    return list(gather_object([item])) if count() > 1 else [item]


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Add up every process's gradients in place; those that no process has stay as they are."""
    if count() == 1:
        return
    every = list(parameters)
    # An optimizer passes over a parameter without a gradient, and moves one with a gradient of 0.
    having = [any(flags) for flags in zip(*gathered([p.grad is not None for p in every]), strict=True)]
    trained = [parameter for parameter, has in zip(every, having, strict=True) if has]
    flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in trained])
    total = reduce(flat, "sum")
    for parameter, part in zip(trained, total.split([p.numel() for p in trained]), strict=True):
        parameter.grad = part.view_as(parameter).clone()


def sum_numbers(numbers: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add up every process's numbers, name by name."""
    found = gathered(numbers)
    names: Sequence[str] = sorted({name for one in found for name in one})
    return {name: sum((one[name] for one in found if name in one), torch.zeros(())) for name in names}
