"""The refusal of DeepSpeed, which names the lines of an FSDP2 configuration that do the same."""

from __future__ import annotations

import os
from typing import Any

from accelerate.utils.deepspeed import HfDeepSpeedConfig

_PREFIX = "ACCELERATE_DEEPSPEED_"
_DEFAULT_STAGE = "2"
"""The one that accelerate takes where none is given."""
_IN_STAGES = {
    **dict.fromkeys(
        ("1", "2"),
        "'fsdp_reshard_after_forward: false', which shares out gradients and moments and keeps the weights whole "
        "from a forward pass to its backward pass",
    ),
    "3": "'fsdp_reshard_after_forward: true', which shares out weights, gradients and moments",
}
_IN_ANY = "'fsdp_reshard_after_forward: true' for ZeRO-3, or 'false' for ZeRO-1 and ZeRO-2"


def asked() -> bool:
    """Whether the launcher asks for DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def refusal() -> str:
    """A sentence that says which lines of a configuration do what the launcher asks DeepSpeed for."""
    try:
        found = _settings()
    except (OSError, ValueError, AttributeError):
        found = {}  # the file is not there, or is not one of DeepSpeed's
    stage = found.get("zero_stage", "")
    if stage == "0":
        return (
            "the launcher asks for ZeRO-0 of DeepSpeed, which rlgf does not run on: set 'distributed_type: MULTI_GPU' in "
            "its configuration, where each process holds everything as well (docs/scaling.md)."
        )
    who, line = (
        (f"ZeRO-{stage} of DeepSpeed", _IN_STAGES[stage]) if stage in _IN_STAGES else ("DeepSpeed", _IN_ANY)
    )
    away = " and ".join(f"'{name}: {where}'" for name, where in found.items() if where in ("cpu", "nvme"))
    left_out = f"; leave out {away}, since nothing leaves the GPU here" if away else ""
    return (
        f"the launcher asks for {who}, which rlgf does not run on: take recipes/accelerate/fsdp2.yaml "
        f"('distributed_type: FSDP', 'fsdp_version: 2') as its configuration, with {line}{left_out} (docs/scaling.md)."
    )


def _settings() -> dict[str, str]:
    """The stage and where weights and moments go, by the names that a configuration of accelerate has for them.

    Raises:
        ValueError, OSError: the configuration names a file of DeepSpeed's that cannot be read.
    """
    own = os.environ.get(_PREFIX + "CONFIG_FILE", "none")
    # As accelerate reads it: a path, or the text itself.
    file = None if own == "none" else HfDeepSpeedConfig(own)
    settings = {
        "zero_stage": ("stage", _DEFAULT_STAGE),
        "offload_optimizer_device": ("offload_optimizer.device", "none"),
        "offload_param_device": ("offload_param.device", "none"),
    }
    found = {}
    for name, (inside, otherwise) in settings.items():
        value: Any = None if file is None else file.get_value(f"zero_optimization.{inside}")
        if value in (None, "auto"):
            value = os.environ.get(_PREFIX + name.upper(), otherwise)
        found[name] = str(value).lower()
    return found
