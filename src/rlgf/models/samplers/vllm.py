"""Tokens from vLLM, in this process: many texts at once, with a paged cache in which equal beginnings are shared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from rlgf import seeding
from rlgf.errors import UserError, one_line
from rlgf.models.encoder_decoder import is_encoder_decoder
from rlgf.models.forward import Tokens
from rlgf.models.generate import Continuation
from rlgf.models.language_model import LanguageModel
from rlgf.models.response_scores import response_scores
from rlgf.models.samplers.base import Beginning
from rlgf.models.samplers.config import NO_ENCODERS, no_sets
from rlgf.models.samplers.engine import (
    adapter_request,
    cannot_run,
    hand_over,
    hand_over_adapter,
    make_engine,
    nothing_else_changed,
)
from rlgf.models.sampling import Sampling
from rlgf.models.vocabulary import writable


class VLLMSampler:
    """A vLLM engine beside a model, whose weights it takes over before it writes.

    Where an adapter is trained, the base is taken over once, and before each call the adapter alone.

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
        if is_encoder_decoder(language_model.model):
            raise UserError(NO_ENCODERS)
        self.language_model = language_model
        self.purpose = purpose
        self.trained = trained
        self.largest_gap: float | None = largest_gap
        self._adapters = None if language_model.without_adapter else language_model.adapters
        self._request = adapter_request() if self._adapters is not None else None
        self._sleeps = language_model.model.device.type == "cuda"
        self._allowed = writable(language_model.model)
        with nothing_else_changed():
            self._engine = make_engine(
                language_model, cache_gib, max_tokens, sleeps=self._sleeps, adapters=self._adapters
            )
            self._take_over(base=True)
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
            raise UserError(no_sets("engine: vllm"))
        prompts = [{"prompt_token_ids": [*one.prompt, *one.written]} for one in beginnings]
        asked = [self._parameters(one, sampling) for one in beginnings]
        with nothing_else_changed(), self._awake() as engine:
            try:
                answers = engine.generate(prompts, asked, use_tqdm=False, lora_request=self._request)
            except ValueError as error:
                raise UserError(f"vLLM does not write: {one_line(error, 300)}.") from error
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
        self._wake("weights")
        if self.trained:
            self._take_over(base=self._adapters is None)
        self._wake("kv_cache")
        try:
            yield self._engine
        finally:
            self._rest()

    def _wake(self, tag: str) -> None:
        if self._sleeps:
            # It takes its memory from the device itself, past PyTorch, which keeps what training has let go of.
            torch.cuda.empty_cache()
            self._engine.wake_up(tags=[tag])

    def take_over(self, *, base: bool) -> None:
        """Take over the weights of a model that was said not to be trained, for the texts that follow.

        Args:
            base: also those under an adapter.
        """
        with nothing_else_changed():
            self._take_over(base=base)

    @property
    def dtype(self) -> torch.dtype:
        found: torch.dtype = self._engine.model_config.dtype
        return found

    def _take_over(self, *, base: bool) -> None:
        """Take over the weights that the model has now.

        Args:
            base: also those under an adapter.
        """
        if base:
            hand_over(self.language_model.model, self._engine)
        if self._adapters is not None:
            hand_over_adapter(self.language_model.model, self._adapters, self._engine)

    def _try_out(self, largest_gap: float, limit: int) -> None:
        """Hold the engine's probabilities of a few tokens against the model's own.

        Raises:
            UserError: they differ too much.
        """
        first, model = self.language_model.end_id, self.language_model.model
        asked = self._parameters(Beginning([first], [], limit, seed=0), Sampling())
        try:
            (answer,) = self._engine.generate(
                [{"prompt_token_ids": [first]}], asked, use_tqdm=False, lora_request=self._request
            )
        except (ValueError, RuntimeError) as error:
            raise UserError(cannot_run(model, error)) from error
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
            self._engine.sleep(level=2 if self.trained and self._adapters is None else 1)
