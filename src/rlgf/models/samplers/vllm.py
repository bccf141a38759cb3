"""Tokens from vLLM, in this process: many texts at once, with a paged cache in which equal beginnings are shared."""

from __future__ import annotations

import copy
import gc
import os
import random
import tempfile
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from transformers import PreTrainedModel

from rlgf import seeding
from rlgf.errors import UserError
from rlgf.models.forward import Tokens
from rlgf.models.generate import Continuation
from rlgf.models.language_model import LanguageModel
from rlgf.models.response_scores import response_scores
from rlgf.models.samplers.base import Beginning
from rlgf.models.samplers.handover import hand_over, keeping_weights
from rlgf.models.samplers.rules import NO_SETS, unfit
from rlgf.models.sampling import Sampling
from rlgf.models.vocabulary import writable

ENVIRONMENT = {
    # vLLM would set one thread to each core for good, and the model trains with the same threads.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
"""What vLLM is told where the user's environment says nothing."""


class VLLMSampler:
    """A vLLM engine beside a model, whose weights it takes over before it writes.

    On a GPU the engine sleeps between two calls (vLLM's sleep mode), so that training has the memory. This has not
    been run on a GPU.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        purpose: str,
        *,
        trained: bool,
        largest_gap: float = 0.2,
        cache_gib: float = 2.0,
        max_tokens: int | None = None,
    ) -> None:
        """
        Args:
            purpose: see `BuiltinSampler`.
            trained: whether the weights may change between two calls; if not, they are taken over once.
            largest_gap: see `Sampler.largest_gap`.
            max_tokens: of a prompt with its response; default: as many as the model can read.

        Raises:
            UserError: vLLM cannot run the model, or gives other probabilities than the model itself.
        """
        refused = unfit(language_model)
        if refused is not None:
            raise UserError(refused)
        self.language_model = language_model
        self.purpose = purpose
        self.trained = trained
        self.largest_gap: float | None = largest_gap
        self._sleeps = language_model.model.device.type == "cuda"
        self._allowed = writable(language_model.model)
        with _nothing_else_changed():
            self._engine = _engine(language_model, cache_gib, max_tokens, sleeps=self._sleeps)
            hand_over(language_model.model, self._engine)
            self._try_out(largest_gap, limit=min(4, max_tokens - 1) if max_tokens else 4)
            self._rest()

    def write(
        self, beginnings: Sequence[Beginning], sampling: Sampling, *, keep_sets: bool = False
    ) -> list[Continuation]:
        """See `Sampler.write`.

        Raises:
            UserError: sets are to be kept and top-k or top-p makes some, or a text is longer than the engine reads.
        """
        if keep_sets and sampling.truncates:
            raise UserError(NO_SETS)
        prompts = [{"prompt_token_ids": [*one.prompt, *one.written]} for one in beginnings]
        asked = [self._parameters(one, sampling) for one in beginnings]
        with _nothing_else_changed(), self._awake() as engine:
            try:
                answers = engine.generate(prompts, asked, use_tqdm=False)
            except ValueError as error:
                raise UserError(f"vLLM does not write: {_line(error)}.") from error
        return [self._continuation(answer.outputs[0]) for answer in answers]

    def _parameters(self, one: Beginning, sampling: Sampling) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            seed=seeding.derive(one.seed, self.purpose),
            max_tokens=one.limit,
            min_tokens=min(max(sampling.min_tokens - one.position, 0), one.limit),
            temperature=sampling.temperature,
            top_k=sampling.top_k or 0,
            top_p=sampling.top_p,
            # All that ends a text is known here; the engine knows no tokenizer.
            ignore_eos=True,
            stop_token_ids=list(self.language_model.end_ids),
            allowed_token_ids=self._allowed,
            logprobs=0,
            detokenize=False,
        )

    def _continuation(self, answer: Any) -> Continuation:
        ids = list(answer.token_ids)
        logprobs = [found[token].logprob for token, found in zip(ids, answer.logprobs, strict=True)]
        finished = ids[-1] in self.language_model.end_ids
        return Continuation(torch.tensor(ids), torch.tensor(logprobs), finished)

    @contextmanager
    def _awake(self) -> Iterator[Any]:
        """The engine, with the weights as they are now."""
        if self._sleeps:
            self._engine.wake_up(tags=["weights"])
        if self.trained:
            hand_over(self.language_model.model, self._engine)
        if self._sleeps:
            self._engine.wake_up(tags=["kv_cache"])
        try:
            yield self._engine
        finally:
            self._rest()

    def _try_out(self, largest_gap: float, limit: int) -> None:
        """Hold the engine's probabilities of a few tokens against the model's own.

        Raises:
            UserError: they differ too much.
        """
        first, model = self.language_model.end_id, self.language_model.model
        asked = self._parameters(Beginning([first], [], limit, seed=0), Sampling())
        try:
            (answer,) = self._engine.generate([{"prompt_token_ids": [first]}], asked, use_tqdm=False)
        except (ValueError, RuntimeError) as error:
            raise UserError(_cannot_run(model, error)) from error
        text = self._continuation(answer.outputs[0])
        there = torch.ones(1, len(text.token_ids), dtype=torch.bool)
        tokens = Tokens(torch.tensor([[first]]), there[:, :1], text.token_ids[None], there)
        with torch.no_grad():
            found = response_scores(
                model, tokens.to(model.device), Sampling(), self.language_model.end_ids
            ).logprobs[0]
        gap = float((found.float().cpu() - text.logprobs).abs().mean())
        if not gap <= largest_gap:
            raise UserError(
                f"vLLM gives a {type(model).__name__} other probabilities than the model itself, by {gap:.3g} nats "
                "per token of a trial text: set 'engine: builtin' where the recipe says 'engine: vllm'."
            )

    def _rest(self) -> None:
        if self._sleeps:
            # At the second level the weights are dropped, not kept on the CPU: new ones come before the next text.
            self._engine.sleep(level=2 if self.trained else 1)


def _engine(language_model: LanguageModel, cache_gib: float, max_tokens: int | None, *, sleeps: bool) -> Any:
    """A ``vllm.LLM`` with the model's architecture and no weights yet."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # In a process of its own it could not be handed weights without copies through the disk or sockets.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    model = language_model.model
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    dtype = torch.bfloat16 if sleeps and model.dtype == torch.float32 else model.dtype
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
                enforce_eager=not sleeps,
                # Beside a model in training; with the cache's size given it reserves nothing more.
                gpu_memory_utilization=0.05,
                kv_cache_memory_bytes=int(cache_gib * 2**30),
                disable_log_stats=True,
            )
            _leave_to_each_other(engine)
            return engine
        except (ValueError, RuntimeError, NotImplementedError, AssertionError) as error:
            raise UserError(_cannot_run(model, error)) from error


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
def _nothing_else_changed() -> Iterator[None]:
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


def _cannot_run(model: PreTrainedModel, error: BaseException) -> str:
    return (
        f"vLLM cannot run a {type(model).__name__} ({_line(error)}): set 'engine: builtin' where the recipe says "
        "'engine: vllm'."
    )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
