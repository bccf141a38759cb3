"""A vLLM engine within this process: how it is made, and what it must leave alone."""

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
from transformers import PreTrainedModel

from rlgf.errors import UserError, one_line
from rlgf.models.language_model import LanguageModel
from rlgf.models.lora import Adapters
from rlgf.models.precision import computes_in_half
from rlgf.models.samplers.handover import keeping_weights

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
    on_gpu = torch.cuda.is_available()
    halved = computes_in_half(model.device) and model.dtype == torch.float32
    dtype = torch.bfloat16 if halved else model.dtype
    with tempfile.TemporaryDirectory() as folder, keeping_weights():
        from vllm import LLM

        config.save_pretrained(folder)
        try:
            engine = LLM(
                folder,
                skip_tokenizer_init=True,
                load_format="dummy",
                dtype=str(dtype).removeprefix("torch."),
                max_model_len=max_tokens,
                generation_config="vllm",
                logprobs_mode="processed_logprobs",
                enable_prefix_caching=True,
                enable_sleep_mode=sleeps,
                enforce_eager=not on_gpu,
                # Beside a model in training; with the cache's size given it reserves nothing more.
                gpu_memory_utilization=0.05,
                kv_cache_memory_bytes=int(cache_gib * 2**30),
                disable_log_stats=True,
                **({} if adapters is None else {"enable_lora": True, "max_lora_rank": _room(adapters.rank)}),
            )
            _leave_to_each_other(engine)
            return engine
        except (ValueError, RuntimeError, NotImplementedError, AssertionError) as error:
            raise UserError(cannot_run(model, error)) from error


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
    return (
        f"vLLM cannot run a {type(model).__name__} ({one_line(error, 300)}): set 'engine: builtin' where the recipe says "
        "'engine: vllm'."
    )
