"""The weights of a model in training become those of a vLLM engine in the same process, without the disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from rlgf.errors import UserError, one_line
from rlgf.models.lora import Adapters


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
    weights = revert_weight_conversion(model, Adapters.without(model.state_dict()))

    def load(runner: Any) -> set[str]:
        with _bare(runner):
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
def _bare(runner: nn.Module) -> Iterator[None]:
    """The engine's model as it is without the layers that stand around its own and add an adapter's part, since the
    loader knows it by its own names."""
    around = [
        (name, layer)
        for name, layer in runner.named_modules(remove_duplicate=False)
        if "base_layer" in layer._modules
    ]

    def put(name: str, layer: Any) -> None:
        above, _, last = name.rpartition(".")
        setattr(runner.get_submodule(above), last, layer)

    try:
        for name, layer in around:
            put(name, layer.base_layer)
        yield
    finally:
        for name, layer in around:
            put(name, layer)


_NUMBER = 1
"""Of the only adapter that an engine has."""


def adapter_request() -> Any:
    """What a text is asked for with that the policy's adapter is to write."""
    from vllm.lora.request import LoRARequest

    # There is no such folder, and none is looked for: `hand_over_adapter` has brought the adapter.
    return LoRARequest("policy", _NUMBER, "handed over in memory")


@torch.no_grad()
def hand_over_adapter(model: PreTrainedModel, adapters: Adapters, engine: Any) -> None:
    """Give an engine the policy's adapter as it is now, in memory.

    vLLM reads adapters from folders alone. This does what its worker does once it has read one.

    Args:
        engine: likewise, made for adapters.

    Raises:
        UserError: the engine has no place for a part of it.
    """
    from vllm.lora.lora_model import LoRAModel
    from vllm.lora.peft_helper import PEFTHelper

    # Copies, since vLLM multiplies them by alpha / r in place.
    weights = {name: weight.clone() for name, weight in adapters.weights().items()}

    def load(worker: Any) -> set[str]:
        manager = worker.model_runner.lora_manager._adapter_manager
        renamed = getattr(manager.model, "hf_to_vllm_mapper", None)
        adapter = LoRAModel.from_lora_tensors(
            _NUMBER,
            weights,
            PEFTHelper.from_dict(adapters.settings),
            device="cpu",
            dtype=manager.lora_config.lora_dtype,
            weights_mapper=None if renamed is None else renamed.get_rename_mapper(),
        )
        places = set(_places(manager))
        homeless = {name for name in adapter.loras if name not in places}
        if not homeless:
            manager.remove_adapter(_NUMBER)
            manager.add_adapter(adapter)
            manager.activate_adapter(_NUMBER)
        return homeless

    try:
        (homeless,) = engine.collective_rpc(load)
    except (KeyError, ValueError, AttributeError, AssertionError, RuntimeError) as error:
        raise UserError(_refused(model, f"{type(error).__name__}: {error}")) from error
    if homeless:
        raise UserError(
            f"vLLM has no place for an adapter of '{min(homeless)}' in a {type(model).__name__}: leave it out of "
            "'policy.lora.targets', or set 'sampler.engine: builtin'."
        )
    engine.reset_prefix_cache()


def _places(manager: Any) -> Iterator[str]:
    """Names of the layers that may have an adapter, also of those that vLLM keeps as one matrix."""
    for name in manager.modules:
        above, _, last = name.rpartition(".")
        yield name
        yield from (f"{above}.{part}" for part in manager.packed_modules_mapping.get(last, ()))


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
    why = one_line(why, 200)
    return (
        f"vLLM does not take the weights of a {type(model).__name__} ({why}): set 'engine: builtin' where the recipe "
        "says 'engine: vllm'."
    )
