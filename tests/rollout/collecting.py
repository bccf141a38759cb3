"""Prompts, and a collector for them that a test changes one thing of."""

from __future__ import annotations

from rlgf.algorithms import Algorithm
from rlgf.guides import Guide
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.types import Author, Rollout, Sample

SAMPLES = [Sample("abca"[: 1 + i % 4] * (1 + i % 2), ("dcba" * 3,)) for i in range(12)]
LENGTH = 10


def collector(policy: LanguageModel, guide: Guide | None = None, **options: object) -> Collector:
    config = RolloutConfig.model_validate({"max_prompt_tokens": 6, "max_response_tokens": LENGTH, **options})
    return Collector(policy, guide, config, seed=0)


def authors(rollout: Rollout, row: int) -> list[Author]:
    return [Author(a) for a in rollout.author[row].tolist() if a != Author.NOBODY]


def sure(row: Algorithm) -> Algorithm:
    return row.changed(help={"probability": 1.0})
