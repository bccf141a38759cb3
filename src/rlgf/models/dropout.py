"""No dropout: it would make the probability ratio of an unchanged policy differ from 1."""

from __future__ import annotations

from torch import nn


def without_dropout(model: nn.Module) -> None:
    """Put a model in evaluation mode, and let nothing drop out either where its forward pass sets another mode.

    Its configuration, which is saved, stays as it is.
    """
    model.eval()
    for module in model.modules():
        # Layers of their own, such as `nn.Dropout.p`, and rates that attention passes to a function.
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():
            # Experts of NLLB keep theirs: in evaluation mode they multiply by what it leaves over.
            if isinstance(value, float) and "drop" in name.lower() and name != "moe_token_dropout":
                setattr(module, name, 0.0)
