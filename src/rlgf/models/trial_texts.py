"""The texts that a model is tried out on: a few ordinary tokens, of unequal length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from rlgf.models.encoder_decoder import decoder_start, is_encoder_decoder

_PROMPTS = (9, 6, 6)
"""Tokens of each text before the written ones: unequal, and the last two are the same text, which is read once; so
a row leaves another also where only texts of one length are run together."""
LIMITS = (2, 4, 3)
"""Tokens that are written: one row leaves the batch before the others."""


@dataclass(frozen=True)
class TrialText:
    """What stands before a response, the beginning of one, and what an encoder reads."""

    before: Int[Tensor, "_"]
    begun: Int[Tensor, "_"]
    prompt: Int[Tensor, "_"] | None

    @property
    def prefix(self) -> Int[Tensor, "_"]:
        return torch.cat([self.before, self.begun])


def trial_texts(model: PreTrainedModel) -> tuple[list[TrialText], Int[Tensor, "_"]]:
    """Texts of unequal length, and what may follow one."""
    ids = _ordinary_ids(model)
    generator = torch.Generator().manual_seed(0)
    drawn = [
        ids[torch.randint(len(ids), (count,), generator=generator)] for count in (*_PROMPTS, max(LIMITS))
    ]
    *prompts, _, more = drawn
    prompts.append(prompts[-1])
    nothing = more[:0]
    if not is_encoder_decoder(model):
        return [TrialText(prompt, nothing, None) for prompt in prompts], more
    start = torch.tensor(decoder_start(model))
    return [
        TrialText(start, prompt[:begun], prompt) for begun, prompt in zip((0, 1, 1), prompts, strict=True)
    ], more


def _ordinary_ids(model: PreTrainedModel) -> Int[Tensor, "N"]:
    """Ids of tokens without a meaning of their own for the model, such as an image's place."""
    embeddings = model.get_input_embeddings()
    assert embeddings is not None, "it has no embeddings of tokens"
    special = {value for name, value in _settings(model.config.to_dict()) if "token" in name}
    weight = embeddings.weight
    assert isinstance(weight, Tensor)
    count = min(len(weight), 1024)
    return torch.tensor([i for i in range(count) if i not in special])


def _settings(config: dict[Any, Any]) -> Iterator[tuple[str, int]]:
    """The whole numbers of a configuration and of those within it."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _settings(value)
        elif isinstance(value, int):
            yield str(name), value
