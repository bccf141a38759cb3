"""Activations as one kernel where a model spells them out in a dozen."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel
from transformers.activations import FastGELUActivation, NewGELUActivation

_SPELLED_OUT = (NewGELUActivation, FastGELUActivation)


def fuse(model: PreTrainedModel) -> None:
    """Let GPT-2 and its kin compute ``0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`` in one pass over x.

    The function is the same, up to rounding.
    """
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, _SPELLED_OUT):
                setattr(module, name, nn.GELU(approximate="tanh"))
