"""What processes that train and one that samples for them say to each other over HTTP: JSON, and tensors as safetensors.

======  ==================  ===================================================================================
GET     ``/sampler``        a `Description`
POST    ``/texts``          an `Asked`; the answer is a `Written`
POST    ``/weights?...``    safetensors, one piece of them; the query is a `Piece`
======  ==================  ===================================================================================

What is refused comes back with a status from 400 on, as ``{"error": "a sentence"}``. Nothing is pickled.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from pydantic import ConfigDict, Field
from safetensors.torch import save
from torch import Tensor

from rlgf.errors import UserError
from rlgf.models.generate import Continuation
from rlgf.models.language_model import LanguageModel
from rlgf.models.samplers.base import Beginning
from rlgf.models.sampling import Sampling
from rlgf.models.vocabulary import writable
from rlgf.states import digest
from rlgf.strict import Strict

PROTOCOL = 1
"""Another number where an earlier version would not understand."""
PIECE = 2**28
"""Bytes of weights that are sent at a time; one tensor that has more is sent by itself."""
TOKEN_VARIABLE = "RLGF_SAMPLER_TOKEN"
"""The environment variable with what a server that other machines can reach asks everybody for."""


def token() -> str | None:
    """What the environment says that everybody has to send; None where it says nothing.

    Raises:
        UserError: no header can hold it.
    """
    found = os.environ.get(TOKEN_VARIABLE, "").strip()
    check_sendable(found, TOKEN_VARIABLE)
    return found or None


def check_sendable(value: str, what: str) -> None:
    """
    Raises:
        UserError: the value cannot stand in a header.
    """
    if not (value.isascii() and (value.isprintable() or not value)):
        raise UserError(f"{what} holds characters that no header can: it must be one line of ASCII.")


class Description(Strict):
    """What a sampler writes with."""

    model_config = ConfigDict(extra="ignore")

    protocol: int = PROTOCOL
    engine: Literal["builtin", "vllm"]
    model: str
    """The class of the model."""
    adapter: str | None
    """Size and layers of the adapter that it writes with."""
    vocabulary: str
    """A digest of the tokens, of which of them may be written, and of which end a text."""
    dtype: Literal["float32", "bfloat16", "float16"]
    """What weights may be rounded to before they are sent."""
    max_tokens: int
    """Of a prompt with its response."""
    weights: str | None = None
    """Which weights it has been brought; None: none, or a part of them."""


class Asked(Strict):
    """Texts to go on with."""

    weights: str
    """Which weights are to write them."""
    sampling: Sampling
    beginnings: list[Beginning] = Field(min_length=1)


class Text(Strict):
    """The text after one of them."""

    ids: list[int]
    logprobs: list[float]
    finished: bool

    @classmethod
    def of(cls, one: Continuation) -> Text:
        return cls(ids=one.token_ids.tolist(), logprobs=one.logprobs.tolist(), finished=one.finished)

    @property
    def continuation(self) -> Continuation:
        return Continuation(torch.tensor(self.ids), torch.tensor(self.logprobs), self.finished)


class Written(Strict):
    """All of them, in their order."""

    texts: list[Text]


class Piece(Strict):
    """Which piece of which weights a request brings."""

    weights: str = Field(max_length=100)
    number: int = Field(ge=0)
    of: int = Field(ge=1, le=100_000)


def described(
    language_model: LanguageModel, engine: Literal["builtin", "vllm"], dtype: torch.dtype, max_tokens: int
) -> Description:
    """A sampler of a model, or what one has to be like for a model."""
    adapters, vocabulary = language_model.adapters, language_model.tokenizer.get_vocab()
    tokens = [sorted(vocabulary.items()), writable(language_model.model), language_model.end_ids]
    return Description.model_validate(
        {
            "engine": engine,
            "model": type(language_model.model).__name__,
            "adapter": None if adapters is None else adapters.words,
            "vocabulary": digest(repr(tokens))[:16],
            "dtype": str(dtype).removeprefix("torch."),
            "max_tokens": max_tokens,
        }
    )


def differs(found: Description, wanted: Description) -> str | None:
    """Why a sampler does not do, as the second half of a sentence; None where it does."""
    if found.protocol != wanted.protocol:
        return "is of another version of rlgf: install the same on both sides"
    if found.engine != wanted.engine:
        return f"writes with '{found.engine}', and 'sampler.engine' is '{wanted.engine}': start it with this recipe"
    if found.max_tokens < wanted.max_tokens:
        return (
            f"writes texts of at most {found.max_tokens} tokens, prompts included, and the recipe has texts of "
            f"{wanted.max_tokens}: start it with this recipe"
        )
    if found.model != wanted.model:
        return f"has a {found.model}, and the policy is a {wanted.model}: start it with this recipe"
    if found.vocabulary != wanted.vocabulary:
        return "has another vocabulary than the policy: start it with this recipe"
    if found.adapter != wanted.adapter:
        return f"has {found.adapter or 'no adapter'}, and the policy {wanted.adapter or 'none'}: start it with this recipe"
    return None


def grouped(weights: Iterable[tuple[str, Tensor]], dtype: torch.dtype) -> list[dict[str, Tensor]]:
    """Weights as they are sent, piece by piece: each is then `packed`."""
    groups: list[dict[str, Tensor]] = []
    held = 0
    for name, weight in weights:
        size = weight.numel() * min(weight.dtype.itemsize, dtype.itemsize)
        if not groups or held + size > PIECE:
            groups.append({})
            held = 0
        groups[-1][name] = weight
        held += size
    return groups


def packed(group: Mapping[str, Tensor], dtype: torch.dtype) -> bytes:
    """One piece, rounded to a precision where that of the weights is higher."""
    found = {}
    for name, weight in group.items():
        smaller = weight.to(dtype) if weight.dtype.itemsize > dtype.itemsize else weight
        found[name] = smaller.detach().cpu().contiguous()
    return save(found)


def largest_piece(own: Mapping[str, Tensor]) -> int:
    """Bytes that a piece for these weights has at most, in whichever precision, names included."""
    largest = max(4 * weight.numel() for weight in own.values())
    return max(PIECE, largest) + sum(len(name) + 200 for name in own)


@torch.no_grad()
def copy_into(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """
    Raises:
        UserError: there is no such weight, or it has another shape; then none is copied.
    """
    for name in sorted(given.keys() - own.keys()):
        raise UserError(f"its model has no weight '{name}': start it with this recipe")
    for name, weight in own.items():
        if name in given and given[name].shape != weight.shape:
            raise UserError(
                f"'{name}' has the shape {tuple(weight.shape)} in its model and {tuple(given[name].shape)} in the policy: "
                "start it with this recipe"
            )
    for name, weight in given.items():
        own[name].copy_(weight)
