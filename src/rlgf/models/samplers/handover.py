"""The weights of a model in training become those of a vLLM engine in the same process, without the disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from rlgf.errors import UserError


@torch.no_grad()
def hand_over(model: PreTrainedModel, engine: Any) -> None:
    """Copy a model's weights into an engine's, in place, under the names that the model's files have.

    The engine's own loader joins what it keeps as one matrix (queries, keys and values) and casts to its precision.
    What it keeps of texts under the old weights is forgotten.

    Args:
        engine: a ``vllm.LLM`` that runs in this process, made within `keeping_weights`.

    Raises:
        UserError: a weight of the engine's has not been set.
    """
    weights = revert_weight_conversion(model, dict(model.state_dict()))

    def load(runner: Any) -> set[str]:
        loaded = runner.load_weights(iter(weights.items()))
        _pack(runner)
        return {name for name, _ in runner.named_parameters()} - set(loaded)

    try:
        (missing,) = engine.apply_model(load)
    except (KeyError, ValueError, AttributeError, AssertionError) as error:
        raise UserError(_refused(model, f"{type(error).__name__}: {error}")) from error
    if missing:
        raise UserError(_refused(model, f"'{min(missing)}' got no weights"))
    engine.reset_prefix_cache()


@contextmanager
def keeping_weights() -> Iterator[None]:
    """An engine made within keeps the weights that it packs for a CPU.

    There vLLM brings its matrices, once they are loaded, into the layout of oneDNN and drops the originals, so that
    nothing can be written into them any more. Here they stay, for twice the memory, and `hand_over` packs them anew.
    """
    from vllm.model_executor.layers import utils

    def pack(layer: Any, remove_weight: bool) -> None:
        packs(layer, remove_weight=False)

    packs = utils.dispatch_cpu_unquantized_gemm
    utils.dispatch_cpu_unquantized_gemm = pack
    try:
        yield
    finally:
        utils.dispatch_cpu_unquantized_gemm = packs


def _pack(runner: Any) -> None:
    """Pack the weights of a model on a CPU as they are now."""
    layers = [layer for layer in runner.modules() if hasattr(layer, "cpu_linear")]
    if layers:
        from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

        for layer in layers:
            if not getattr(layer, "_cpu_skip_gemm_dispatch", False):
                dispatch_cpu_unquantized_gemm(layer, remove_weight=False)


def _refused(model: PreTrainedModel, why: str) -> str:
    why = " ".join(why.split())[:200].rstrip(".")
    return (
        f"vLLM does not take the weights of a {type(model).__name__} ({why}): set 'engine: builtin' where the recipe "
        "says 'engine: vllm'."
    )
