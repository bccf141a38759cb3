"""Tensors that processes give each other, or add up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from rlgf.distributed.link import count, gathered, group, in_touch, is_main
from rlgf.states import mapped


def from_main(state: Any) -> Any:
    """The main process's nested state, its tensors on the CPU; what the others give is not read."""
    if count() == 1:
        return state
    tensors: list[Tensor] = []

    def taken_out(tensor: Tensor) -> _Slot:
        tensors.append(tensor)
        return _Slot(len(tensors) - 1, tuple(tensor.shape), tensor.dtype)

    frame = gathered(mapped(taken_out, state, Tensor) if is_main() else None)[0]
    if not is_main():
        slots: list[_Slot] = []
        mapped(slots.append, frame, _Slot)
        tensors = [torch.empty(slot.shape, dtype=slot.dtype) for slot in slots]
    else:
        tensors = [tensor.detach().cpu().contiguous() for tensor in tensors]
    gathered(None)
    # From here on nothing can fail in one process alone.
    with in_touch():
        for tensor in tensors:
            dist.broadcast(tensor, src=0, group=group())
    return mapped(lambda slot: tensors[slot.number], frame, _Slot)


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


@dataclass(frozen=True)
class _Slot:
    """Where a tensor belongs in a state."""

    number: int
    shape: tuple[int, ...]
    dtype: torch.dtype
