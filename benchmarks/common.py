"""What the benchmarks share: a GPT of 4 million parameters, prompts, and a clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from rlgf.models.language_model import LanguageModel
from rlgf.models.scratch import ScratchConfig, build_scratch
from rlgf.tasks import build_task
from rlgf.types import Sample


def reviews(count: int, tokenizer_texts: int = 2000) -> tuple[list[Sample], list[str]]:
    """Samples whose prompts fill 64 tokens, and text to fit a tokenizer on."""
    samples = build_task("imdb", {}).load("train")
    texts = [sample.prompt + sample.references[0] for sample in samples[:tokenizer_texts]]
    return list(samples[:count]), texts


def small_gpt(texts: list[str], **changes: int) -> LanguageModel:
    """A GPT-2 with 4.2 million random parameters; random or trained, its passes cost the same."""
    model, tokenizer = build_scratch(ScratchConfig(**changes), texts)
    return LanguageModel(model.eval(), tokenizer)


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """The median time of a call, after one to warm up."""
    work()
    return statistics.median(_seconds(work) for _ in range(repeats))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
