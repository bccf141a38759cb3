"""What the launcher, such as `accelerate launch`, asks for by the environment: FSDP2, and over how many processes.

Whatever it asks for that this library does not do is refused, so that nothing is passed over in silence.
"""

from __future__ import annotations

import os

from accelerate import FullyShardedDataParallelPlugin

from rlgf import distributed
from rlgf.errors import UserError
from rlgf.models import from_deepspeed
from rlgf.models.abilities import computes_in_half

_NOT_DONE = {
    "fsdp_offload_params": "since texts cannot be written with weights that lie in the machine's memory",
    "fsdp_activation_checkpointing": "and 'update.gradient_checkpointing: true' in the recipe",
}
"""What a launcher may ask of FSDP that is done otherwise here, or not at all."""


def wanted() -> bool:
    """Whether the launcher asks for shards, and there is more than one process.

    Raises:
        UserError: it asks for what this library does not do.
    """
    return asked() and distributed.count() > 1


def asked() -> bool:
    """Whether the launcher asks for shards.

    Raises:
        UserError: it asks for what this library does not do.
    """
    if from_deepspeed.asked():
        raise UserError(from_deepspeed.refusal())
    computes_in_half(distributed.device())  # which refuses other precisions
    for name in ("tp_size", "cp_size", "sp_size"):
        if (size := _parallel_size(name)) > 1:
            raise UserError(
                f"the launcher asks for 'parallelism_config_{name}: {size}': leave it out, since texts alone are divided."
            )
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return False
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise UserError(
            f"the launcher asks for version {version} of FSDP: set 'fsdp_version: 2' in its configuration, as "
            "recipes/accelerate/fsdp2.yaml does."
        )
    for name, instead in _NOT_DONE.items():
        if os.environ.get(name.upper(), "false").lower() == "true":
            raise UserError(
                f"the launcher asks for '{name}: true': set it to false in its configuration, {instead}."
            )
    sharing()
    return True


def sharing() -> int:
    """Over how many processes one copy of the weights is spread: over all, or over as many as the launcher says (HSDP).

    Raises:
        UserError: its sizes do not come to the number of processes.
    """
    if os.environ.get("ACCELERATE_USE_PARALLELISM_CONFIG", "false").lower() != "true":
        return distributed.launched()
    copies, shares = _parallel_size("dp_replicate_size"), _parallel_size("dp_shard_size")
    if shares == 1 or copies * shares != distributed.launched():
        raise UserError(
            f"the launcher asks for {copies} copies of the weights, each spread over {shares} processes, and starts "
            f"{distributed.launched()}: set 'parallelism_config_dp_replicate_size' and "
            "'parallelism_config_dp_shard_size' (2 or more), whose product is the number of processes."
        )
    return shares


def _parallel_size(name: str) -> int:
    said = os.environ.get("ACCELERATE_USE_PARALLELISM_CONFIG", "false").lower() == "true"
    return int(os.environ.get(f"PARALLELISM_CONFIG_{name.upper()}", "1")) if said else 1


def keeps_layers() -> bool:
    """Whether the launcher asks that a layer's weights stay gathered from its forward to its backward pass."""
    return not FullyShardedDataParallelPlugin().reshard_after_forward
