"""How a model can be run, so that what it says of a text is what it says of that text alone."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from rlgf.errors import UserError

_ATTRIBUTE = "_rlgf_abilities"


@dataclass(frozen=True)
class Abilities:
    """What a model can do besides reading one text at a time; the defaults are a model that can do all."""

    padding: bool = True
    """Texts of unequal length can be run together, padded on the left. Models with a recurrent state and
    decoders that count positions from the first column may not be able to."""
    prompt_padding: bool = True
    """An encoder can read prompts of unequal length together, padded on the right."""
    cache: bool = True
    """It can go on with a text without reading it again."""
    step_mask: bool = True
    """With a cache it wants the mask of the whole text; Mamba, which has no keys to mask, wants none."""
    shared_prompts: bool = True
    """Responses can be read after a prompt that was read once for all of them, gradients included. Not where a
    layer keeps another thing than the keys and values of all tokens."""
    plain_head: bool = True
    """Its logits are its head's of the last hidden states, so they can be computed in pieces."""
    first_position: int | None = 0
    """The number of a text's first position; None if the model counts positions itself."""


def abilities(model: PreTrainedModel) -> Abilities:
    """What a model can do, tried out when it is first asked for and kept with the model and its copies.

    Raises:
        UserError: it cannot write text token by token, or not the same text twice.
    """
    found = getattr(model, _ATTRIBUTE, None)
    return _trial[0](model) if found is None else found


_trial: list[Callable[[PreTrainedModel], Abilities]] = []
"""Whoever tries a model out, which runs it in the very ways that ask for its abilities."""


def found_by(trial: Callable[[PreTrainedModel], Abilities]) -> Callable[[PreTrainedModel], Abilities]:
    """Makes a function the one that tries models out."""
    _trial[:] = [trial]
    return trial


def declare(model: PreTrainedModel, able: Abilities | None) -> None:
    """Keep what a model can do with it and with its trunk; None is not known."""
    for module in (model, model.base_model):
        setattr(module, _ATTRIBUTE, able)


def takes(model: nn.Module, name: str) -> bool:
    """Whether ``model.forward`` knows an argument of that name."""
    trunk: Any = getattr(model, "base_model", model)
    return name in _arguments(type(model).forward, type(trunk).forward)


def lean(model: nn.Module, *, use_cache: bool) -> dict[str, Any]:
    """The arguments of a lean pass, which gives logits and nothing else, as far as a model knows them.

    A configuration may ask for the routers' balancing loss too, whose computation fails where a pass goes on from a cache.
    """
    wanted = {"use_cache": use_cache, "output_router_logits": False}
    return {name: value for name, value in wanted.items() if takes(model, name)}


@lru_cache
def _arguments(forward: Callable[..., Any], trunk: Callable[..., Any]) -> frozenset[str]:
    """Names of a forward pass's arguments; those that it hands on to its trunk are the trunk's."""
    found = inspect.signature(forward).parameters
    names = {name for name, one in found.items() if one.kind is not one.VAR_KEYWORD}
    if len(names) < len(found) and trunk is not forward:
        names |= _arguments(trunk, trunk)
    return frozenset(names)


def computes_in_half(device: torch.device) -> bool:
    """Whether passes run in bfloat16: as the launcher says, and where none does on a GPU alone.

    Raises:
        UserError: it asks for what this library does not do.
    """
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "bf16" if device.type == "cuda" else "no")
    if asked not in ("bf16", "no"):
        raise UserError(
            f"the launcher asks for 'mixed_precision: {asked}', and passes run in 'bf16' or 'no' here: set one of them "
            "in its configuration."
        )
    return asked == "bf16"


def mixed_precision(device: torch.device) -> torch.autocast:
    """Matrix products run in bfloat16 where passes do, over weights that stay as they are."""
    return torch.autocast(device.type, torch.bfloat16, enabled=computes_in_half(device))


@contextmanager
def many_passes(model: PreTrainedModel) -> Iterator[None]:
    """`mixed_precision` around passes without gradients, in all of which it casts each weight once.

    It keeps the casts of those weights alone that want a gradient. So frozen ones stand here as such, in the modules of
    this model: a copy of it in another thread may share its weights.
    """
    frozen = [
        (module, name, weight)
        for module in (model.modules() if computes_in_half(model.device) else ())
        for name, weight in module._parameters.items()
        if type(weight) is nn.Parameter and weight.dtype == torch.float32 and not weight.requires_grad
    ]
    for module, name, weight in frozen:
        module._parameters[name] = nn.Parameter(weight.detach())
    try:
        with mixed_precision(model.device):
            yield
    finally:
        for module, name, weight in frozen:
            module._parameters[name] = weight
