"""Activation checkpointing: a layer's activations are computed a second time in the backward pass, and not kept.

Chen et al., "Training Deep Nets with Sublinear Memory Cost" (arXiv 1604.06174), as `transformers` has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from rlgf.errors import UserError
from rlgf.models.lora import Adapters


def enable(model: PreTrainedModel, adapters: Adapters | None = None) -> None:
    """Let the passes of a model, and of copies that are made of it from now on, keep the inputs of its layers alone.

    Args:
        adapters: those of the model, where it has some.

    Raises:
        UserError: it cannot do so.
    """
    if not model.supports_gradient_checkpointing or not layers_of(model.modules()):
        raise UserError(
            f"'update.gradient_checkpointing' does not fit the policy: {type(model).__name__} cannot compute its layers a "
            "second time; leave it out, or lower 'update.max_micro_tokens'."
        )
    # No random numbers are drawn, since dropout is off.
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if adapters is not None:
        options["context_fn"] = adapters.contexts
    # transformers 5.24 renamed it.
    switch: Any = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    switch(options)
    # Which it lets the embeddings do for the way of checkpointing that is not used here.
    model.disable_input_require_grads()


def recomputes(model: PreTrainedModel) -> bool:
    """Whether a pass that is made now keeps the inputs of layers alone."""
    return torch.is_grad_enabled() and any(
        layer.gradient_checkpointing for layer in layers_of(model.modules())
    )


@contextmanager
def recomputed(model: PreTrainedModel) -> Iterator[None]:
    """Around a pass of a model, which is in evaluation mode: `transformers` looks at each layer's mode for whether to
    keep its activations. What is in the layers stays in evaluation mode."""
    layers = layers_of(model.modules()) if recomputes(model) else []
    modes = [layer.training for layer in layers]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer, mode in zip(layers, modes, strict=True):
            layer.training = mode


def layers_of(modules: Iterable[nn.Module]) -> list[GradientCheckpointingLayer]:
    """Those of some modules that can be computed a second time."""
    return [module for module in modules if isinstance(module, GradientCheckpointingLayer)]
