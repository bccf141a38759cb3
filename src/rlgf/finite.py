"""Numbers that are not finite end a run where they first appear: before they reach weights or a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool
from torch import Tensor

from rlgf.errors import UserError

_ADVICE = (
    "the weights of this update are not saved: lower 'update.learning_rate', or look at what the rewards and the "
    "models gave"
)


def require_finite(what: str, values: Tensor, mask: Bool[Tensor, "..."] | None = None) -> None:
    """
    Args:
        what: how a message calls the values.
        mask: those that count; default: all.

    Raises:
        UserError: one of them is not a finite number; says which value it has.
    """
    counted = values if mask is None else values[mask]
    # One transfer from the device, and no copy where all is well.
    if not counted.is_floating_point() or bool(counted.isfinite().all()):
        return
    found = counted[~counted.isfinite()].flatten()[0].item()
    raise UserError(f"{what} must be finite, and one is {found}; {_ADVICE}.")


def require_finite_weights(what: str, weights: Iterable[tuple[str, Tensor]]) -> None:
    """
    Args:
        what: how a message calls the model.

    Raises:
        UserError: a weight is not finite; names it.
    """
    for name, weight in weights:
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            raise UserError(
                f"{what} has numbers that are not finite in its weight '{name}', so it can neither write nor learn: "
                "choose another model, or a checkpoint from before they appeared."
            )
