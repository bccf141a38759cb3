"""Experts that take every token: with a capacity, what a token gets would depend on those around it."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

_ROOM = 2**31 - 1
"""More tokens than any batch has."""


def without_capacity(model: PreTrainedModel) -> None:
    """Let no expert turn tokens away, as those of Switch Transformers and NLLB do beyond a number of them.

    Padding would fill them too, and a text that is written token by token never does. The configuration changes with
    them, so that the saved model is the one that was trained.
    """
    places: list[Any] = [model.config, *model.modules()]
    for place in places:
        if getattr(place, "expert_capacity", None) is not None:
            place.expert_capacity = _ROOM
        if hasattr(place, "moe_eval_capacity_token_fraction"):
            place.moe_eval_capacity_token_fraction = 1.0
