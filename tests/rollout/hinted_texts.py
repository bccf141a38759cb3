"""Texts that are written after hints of letters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlgf.algorithms import Algorithm
from rlgf.algorithms.catalog import GRPO
from rlgf.guides import Guide
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.types import Rollout, Sample
from toys import letter_gpt

SAMPLES = [Sample("abca"[: 1 + i % 4], ("dcbadcba",), {"hint": "dd", "none": ""}) for i in range(8)]
PLAIN = "{hint}{prompt}"


def hinted(help: dict[str, Any] | None = None, **hint: Any) -> Algorithm:
    return GRPO.changed(
        script={"hint": {"template": PLAIN, **hint}}, help={"probability": 1.0, **(help or {})}
    )


def collector(guide: Guide | None = None, **options: Any) -> Collector:
    settings = {"max_prompt_tokens": 6, "max_response_tokens": 6, "max_hint_tokens": 8, **options}
    return Collector(letter_gpt(), guide, RolloutConfig.model_validate(settings), seed=0)


def read(rollout: Rollout) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(rollout.prompt_ids, rollout.prompt_mask, strict=True)]


def of_letters(text: str) -> list[int]:
    return ["abcd".index(letter) for letter in text]


def tiered(base: Algorithm, **hint: Any) -> Algorithm:
    return base.changed(script={"hint": {"template": PLAIN, **hint}})


class Watched:
    """Pays texts after a hint of so many letters, and remembers the hints that it was shown."""

    def __init__(self, needed: int) -> None:
        self.needed = needed
        self.shown: list[list[str | None]] = []

    def __call__(self, rollout: Rollout) -> Tensor:
        self.shown.append(list(rollout.hints or ()))
        return torch.tensor([float(len(hint or "") >= self.needed) for hint in rollout.hints or ()])
