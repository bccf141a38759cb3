"""The sampler of a run whose texts another process writes, see `rlgf.models.samplers.server`."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

import torch
from torch import Tensor

from rlgf import distributed
from rlgf.errors import UserError
from rlgf.models.generate import Continuation
from rlgf.models.language_model import LanguageModel
from rlgf.models.samplers.base import Beginning
from rlgf.models.samplers.config import SamplerConfig
from rlgf.models.samplers.line import CONNECTING, Line
from rlgf.models.samplers.rules import no_sets
from rlgf.models.samplers.wire import (
    PROTOCOL,
    Asked,
    Piece,
    Written,
    described,
    differs,
    grouped,
    packed,
)
from rlgf.models.sampling import Sampling


class ServedSampler:
    """Asks a server for texts. Every process of a run has one; the main process brings the server the weights."""

    def __init__(
        self, language_model: LanguageModel, config: SamplerConfig, max_tokens: int, seconds: float = 1800.0
    ) -> None:
        """
        Args:
            config: with the server's address.
            max_tokens: of a prompt with its response.
            seconds: how long to wait for an answer.

        Raises:
            UserError: no sampler answers, or one of another model.
        """
        self.language_model = language_model
        self.largest_gap: float | None = config.largest_gap
        self._line = Line(str(config.server), seconds)
        found = self._line.description()
        self._dtype: torch.dtype = getattr(torch, found.dtype)
        self._wanted = described(language_model, config.engine, self._dtype, max_tokens)
        self._line.require(differs(found, self._wanted))
        trained = {id(parameter) for parameter in language_model.trained}
        named = list(language_model.model.named_parameters())
        # By name, since weights that processes share are others while they are gathered.
        self._trained = {name for name, parameter in named if id(parameter) in trained}
        self._all = {name for name, _ in named if name in self._trained or ".lora_" not in name}
        self._run: str | None = None
        self._number = 0

    @property
    def _weights(self) -> str:
        return f"{self._run}-{self._number}"

    def follow(self) -> None:
        """See `FollowingSampler.follow`.

        Raises:
            UserError: the server is gone, serves another run meanwhile, or does not take the weights.
        """
        first = self._run is None
        if first:
            self._run = distributed.gathered(secrets.token_hex(8))[0]
        before, self._number = self._weights, self._number + 1
        with self.language_model.running() as model:
            if distributed.is_main():
                found = self._line.description()
                self._line.require(differs(found, self._wanted))
                if not first and found.weights not in (before, None):
                    self._line.refuse("has been given weights by another run: start one for each run")
                # All where the server may have others, such as one that was started anew.
                names = self._all if first or found.weights is None else self._trained
                self._send({name: one for name, one in model.named_parameters() if name in names})
        # Nobody asks before they are there.
        distributed.gathered(None)

    def write(
        self, beginnings: Sequence[Beginning], sampling: Sampling, *, keep_sets: bool = False
    ) -> list[Continuation]:
        """See `Sampler.write`.

        Raises:
            UserError: sets are to be kept and top-k or top-p makes some; or see `follow`.
        """
        if keep_sets and sampling.truncates:
            raise UserError(no_sets("server"))
        assert self._run is not None, "the weights are brought before texts are asked for"
        asked = Asked(weights=self._weights, sampling=sampling, beginnings=list(beginnings))
        said = self._line.post("/texts", asked.model_dump_json().encode(), "application/json")
        texts = self._line.read(Written, said).texts
        if len(texts) != len(beginnings) or not all(len(t.ids) == len(t.logprobs) > 0 for t in texts):
            self._line.refuse("gave other texts than it was asked for")
        return [text.continuation for text in texts]

    def _send(self, weights: Mapping[str, Tensor]) -> None:
        groups = grouped(weights.items(), self._dtype)
        for number, group in enumerate(groups):
            piece = Piece(weights=self._weights, number=number, of=len(groups))
            path = f"/weights?{urlencode(piece.model_dump())}"
            self._line.post(path, packed(group, self._dtype), "application/octet-stream")


def require_server(config: SamplerConfig, max_tokens: int) -> None:
    """
    Raises:
        UserError: no sampler answers at the address, or another engine, or one for shorter texts.
    """
    line = Line(str(config.server), CONNECTING)
    found = line.description()
    changes = {"protocol": PROTOCOL, "engine": config.engine, "max_tokens": max_tokens}
    line.require(differs(found, found.model_copy(update=changes)))
