"""A vLLM engine within this process: how it is made, what it must leave alone, and how it gets the weights of a model in training, without the disk."""

from __future__ import annotations

import copy
import gc
import os
import random
import tempfile
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

import numpy
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from rlgf.distributed import device
from rlgf.errors import UserError, one_line
from rlgf.models.abilities import computes_in_half
from rlgf.models.language_model import LanguageModel
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


ENVIRONMENT = {
    # vLLM would set one thread to each core for good, and the model trains with the same threads.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
"""What vLLM is told where the user's environment says nothing."""


def make_engine(
    language_model: LanguageModel,
    cache_gib: float,
    max_tokens: int | None,
    *,
    sleeps: bool,
    adapters: Adapters | None = None,
) -> Any:
    """A ``vllm.LLM`` with the model's architecture and no weights yet.

    Args:
        sleeps: whether it is put to sleep between two calls.
        adapters: where texts are written with the policy's.

    Raises:
        UserError: vLLM cannot run the model, or no adapter of it.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # In a process of its own it could not be handed weights without copies through the disk or sockets.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    model = language_model.model
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    with tempfile.TemporaryDirectory() as folder, keeping_weights():
        from vllm import LLM

        config.save_pretrained(folder)
        try:
            engine = LLM(
                folder,
                skip_tokenizer_init=True,
                load_format="dummy",
                dtype=str(dtype_of(model)).removeprefix("torch."),
                max_model_len=max_tokens,
                generation_config="vllm",
                logprobs_mode="processed_logprobs",
                enable_prefix_caching=True,
                enable_sleep_mode=sleeps,
                enforce_eager=device().type != "cuda",
                # Beside a model in training; with the cache's size given it reserves nothing more.
                gpu_memory_utilization=0.05,
                kv_cache_memory_bytes=int(cache_gib * 2**30),
                disable_log_stats=True,
                **(
                    {}
                    if adapters is None
                    else {"enable_lora": True, "max_lora_rank": _room(adapters.settings["r"])}
                ),
            )
            _leave_to_each_other(engine)
            return engine
        except (OSError, ValueError, RuntimeError, NotImplementedError, AssertionError) as error:
            raise UserError(cannot_run(model, error)) from error


def dtype_of(model: PreTrainedModel) -> torch.dtype:
    """What an engine computes in: as the passes of a model where the engine is, on a GPU also where the model behind a
    server waits on the CPU."""
    halved = computes_in_half(device()) and model.dtype == torch.float32
    return torch.bfloat16 if halved else model.dtype


def _room(rank: int) -> int:
    """The smallest rank that vLLM makes room for and that holds an adapter's."""
    from vllm.config.lora import MaxLoRARanks

    return min((size for size in get_args(MaxLoRARanks) if size >= rank), default=rank)


_alive: set[int] = set()
"""The engines that have not ended."""


def _leave_to_each_other(engine: Any) -> None:
    """Let an engine that ends before others leave them the process groups, which all engines of a process share."""
    client = engine.llm_engine.engine_core
    own, core = getattr(client, "_finalizer", None), getattr(client, "engine_core", None)
    if own is None or core is None or own.detach() is None:
        return
    number = id(core)

    def end() -> None:
        _alive.discard(number)
        # While the interpreter ends, `rlgf.distributed` may have ended the groups already.
        if not _alive and torch.distributed.is_initialized():
            core.shutdown()
            return
        core.model_executor.shutdown()
        core.scheduler.shutdown()
        gc.unfreeze()  # what vLLM froze when it began would never be collected

    _alive.add(number)
    client._finalizer = weakref.finalize(client, end)


@contextmanager
def nothing_else_changed() -> Iterator[None]:
    """vLLM seeds every generator there is, draws from Python's, and takes `torch.set_num_threads` away; all come back."""
    states = random.getstate(), numpy.random.get_state()
    set_threads, threads = torch.set_num_threads, torch.get_num_threads()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices):
            warnings.simplefilter("ignore")  # of vLLM's own imports
            yield
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])
        torch.set_num_threads = set_threads
        torch.set_num_threads(threads)


def cannot_run(model: PreTrainedModel, error: BaseException) -> str:
    said = one_line(error, 300)
    # There are such models that it runs without an adapter.
    first = "leave out 'policy.lora', or " if "LoRA" in said else ""
    return (
        f"vLLM cannot run a {type(model).__name__} ({said}): {first}set 'engine: builtin' where the recipe "
        "says 'engine: vllm'."
    )
