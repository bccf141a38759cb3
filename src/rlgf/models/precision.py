"""In which precision passes run, as the launcher says."""

from __future__ import annotations

import os

import torch

from rlgf.errors import UserError


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
