"""Texts to decode in batches, and the same through a plain forward pass for every token."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedModel

from rlgf.models.abilities import abilities, declare
from rlgf.models.generate import Continuation, sample_continuations
from rlgf.models.kv_cache import cache_argument
from rlgf.models.sampling import Sampling, draw, sampling_logits

END = 0
TOLERANCE = 1e-4
LIMIT = 20
SAMPLINGS = [
    Sampling(),
    Sampling(temperature=1.3, min_tokens=6),
    Sampling(temperature=0.8, top_k=7, top_p=0.9, min_tokens=3),
]


@contextmanager
def without_cache(model: PreTrainedModel) -> Iterator[None]:
    """The model reads the whole text at every step: slow, to check the cache against."""
    able = abilities(model)
    declare(model, replace(able, cache=False))
    try:
        yield
    finally:
        declare(model, able)


class Task:
    """Ragged prefixes, which hold the end-of-text token too, with ragged limits."""

    def __init__(self, rows: int = 14, seed: int = 0) -> None:
        random = torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, 12, (rows,), generator=random).tolist()
        self.prefixes = [torch.randint(16, (n,), generator=random) for n in lengths]
        self.limits = torch.randint(1, LIMIT + 1, (rows,), generator=random)
        self.first_positions = torch.randint(0, 5, (rows,), generator=random)
        self.uniforms = torch.rand(rows, LIMIT, generator=random)

    def run(
        self,
        model: PreTrainedModel,
        sampling: Sampling | None = None,
        rows: list[int] | None = None,
        end_ids: Collection[int] = (END,),
        max_batch_tokens: int = 32_768,
    ) -> list[Continuation]:
        rows = list(range(len(self.prefixes))) if rows is None else rows
        return sample_continuations(
            model,
            [self.prefixes[i] for i in rows],
            self.limits[rows],
            self.uniforms[rows],
            sampling or Sampling(),
            end_ids,
            first_positions=self.first_positions[rows],
            max_batch_tokens=max_batch_tokens,
            keep_sets=True,
        )

    def slowly(
        self, model: PreTrainedModel, row: int, sampling: Sampling, end_ids: Collection[int]
    ) -> Continuation:
        """The whole text through a plain forward pass for every token."""
        text, logprobs = self.prefixes[row], []
        first = int(self.first_positions[row])
        for step in range(int(self.limits[row])):
            with torch.no_grad():
                logits = model(text[None]).logits[:, -1]
            warped = sampling_logits(logits, torch.tensor([first + step]), sampling, end_ids)
            token, logprob = draw(warped, self.uniforms[row, step : step + 1])
            text = torch.cat([text, token])
            logprobs.append(logprob.item())
            if token in end_ids:
                break
        ids = text[len(self.prefixes[row]) :]
        return Continuation(ids, torch.tensor(logprobs), int(ids[-1]) in end_ids)


def assert_same(actual: list[Continuation], expected: list[Continuation]) -> None:
    assert [c.token_ids.tolist() for c in actual] == [c.token_ids.tolist() for c in expected]
    assert [c.finished for c in actual] == [c.finished for c in expected]
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one.logprobs, other.logprobs, atol=TOLERANCE, rtol=0)


@contextmanager
def passes(model: PreTrainedModel) -> Iterator[list[tuple[int, int, int]]]:
    """Rows, new positions and attended positions of each forward pass."""
    abilities(model)  # the trial runs passes of its own
    seen: list[tuple[int, int, int]] = []

    def record(_module: object, _args: object, kwargs: dict[str, Any]) -> None:
        rows, width = kwargs["input_ids"].shape
        cache = kwargs[cache_argument(model) or ""]
        seen.append((rows, width, width + (cache.get_seq_length() if cache is not None else 0)))

    handle = model.register_forward_pre_hook(record, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()
