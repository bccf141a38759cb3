"""Guides that note down what they read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rlgf.guides import Request
from rlgf.models.abilities import abilities
from rlgf.models.language_model import LanguageModel
from rlgf.types import Completion


class Foreign:
    """A guide that has text alone, and keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        self.requests += requests
        return [Completion(" was a joy", finished=False) for _ in requests]


@contextmanager
def reading(model: LanguageModel) -> Iterator[list[list[int]]]:
    """The ids of the texts that are read before any is written, without padding."""
    seen: list[list[int]] = []

    def look(module: object, args: object, given: dict[str, object]) -> None:
        ids, mask = given["input_ids"], given["attention_mask"]
        if ids.shape[1] > 1:
            seen.extend(row[m.bool()].tolist() for row, m in zip(ids, mask, strict=True))

    # What a model can do is tried at its first pass, which is not the one to look at.
    abilities(model.model)
    part = model.model.get_encoder() if model.model.config.is_encoder_decoder else model.model
    handle = part.register_forward_pre_hook(look, with_kwargs=True)
    yield seen
    handle.remove()
