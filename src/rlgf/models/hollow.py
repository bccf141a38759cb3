"""Models that are loaded in one process and shared out among all, so that a machine holds them once.

The main process loads a model; the others get a hollow one: the same modules, whose parameters have a shape and no
storage (device ``meta``). `rlgf.models.sharding.shard` then gives each process its share of one weight after another.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from rlgf import distributed

_T = TypeVar("_T")


def from_main(build: Callable[[], _T], modules: Callable[[_T], list[nn.Module]]) -> _T:
    """What the main process builds, and in the others the same with hollow modules; called by all together.

    All that is not a parameter comes along: buffers, configurations, what was found out about a model, and which
    weights are tied.

    Args:
        build: called in the main process alone.
        modules: those in what it builds.

    Raises:
        FailedElsewhereError: the main process could not build it.
    """
    if not distributed.is_main():
        found: _T = distributed.gathered(None)[0]
        return found
    built = build()
    distributed.gathered(_emptied(built, modules(built)))
    return built


def is_hollow(module: nn.Module) -> bool:
    return any(parameter.is_meta for parameter in module.parameters())


def materialize(module: nn.Module, where: torch.device) -> None:
    """Give the shares of a hollow module a storage, with any numbers in it; its buffers keep theirs."""
    buffers: Mapping[str, Tensor] = dict(module.named_buffers())
    module.to_empty(device=where)
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])


def _emptied(built: _T, modules: list[nn.Module]) -> _T:
    """A copy without the storage of parameters, which is not copied on the way either."""
    memo: dict[int, object] = {}
    for module in modules:
        for parameter in module.parameters():
            shape = torch.empty_like(parameter, device="meta")
            memo[id(parameter)] = nn.Parameter(shape, requires_grad=parameter.requires_grad)
    return copy.deepcopy(built, memo)
