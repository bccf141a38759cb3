"""The sampler of a run whose texts another process writes, and its way to the server: see `rlgf.models.samplers.server`."""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import NoReturn, TypeVar
from urllib.parse import urlencode, urlsplit

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from rlgf import distributed
from rlgf.errors import UserError, one_line
from rlgf.models.generate import Continuation
from rlgf.models.language_model import LanguageModel
from rlgf.models.samplers.base import Beginning
from rlgf.models.samplers.config import SamplerConfig, no_sets
from rlgf.models.samplers.wire import (
    PROTOCOL,
    TOKEN_VARIABLE,
    Asked,
    Description,
    Piece,
    Written,
    described,
    differs,
    grouped,
    packed,
    token,
)
from rlgf.models.sampling import Sampling
from rlgf.terminal import printable

_M = TypeVar("_M", bound=BaseModel)

CONNECTING = 10.0
"""Seconds to wait for a connection."""


class Connection:
    """The way to a server, which says in a sentence what is wrong with it."""

    def __init__(self, url: str, seconds: float) -> None:
        self.url = url
        self._seconds = seconds
        self._answered = False

    def description(self) -> Description:
        """
        Raises:
            UserError: no sampler answers.
        """
        return self.read(Description, self._request("GET", "/sampler"))

    def post(self, path: str, body: bytes, kind: str) -> bytes:
        """
        Raises:
            UserError: it does not answer, or refuses.
        """
        return self._request("POST", path, body, {"Content-Type": kind})

    def read(self, kind: type[_M], said: bytes) -> _M:
        """
        Raises:
            UserError: it said something else.
        """
        try:
            return kind.model_validate_json(said)
        except ValidationError as error:
            raise UserError(self._stranger()) from error

    def require(self, sentence: str | None) -> None:
        """
        Raises:
            UserError: there is a sentence, the second half of one about the server.
        """
        if sentence is not None:
            self.refuse(sentence)

    def refuse(self, sentence: str) -> NoReturn:
        raise UserError(f"the sampler at {self.url} {sentence}.")

    def _request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> bytes:
        secret = token()
        admission = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        place = urlsplit(self.url)
        kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
        # Without a proxy, whatever the environment says: the server is near.
        connection = kind(place.hostname or "", place.port, timeout=CONNECTING)
        try:
            connection.connect()
            connection.sock.settimeout(self._seconds)
            connection.request(method, path, body, {**(headers or {}), **admission})
            answer = connection.getresponse()
            said, status = answer.read(), answer.status
        except (OSError, http.client.HTTPException) as error:
            raise UserError(self._silent(error)) from error
        finally:
            connection.close()
        if status != 200:
            self._refused(status, said)
        self._answered = True
        return said

    def _refused(self, status: int, said: bytes) -> NoReturn:
        if status == 401:
            self.refuse(
                f"asks for a token: set the environment variable {TOKEN_VARIABLE} to the one that it was started with"
            )
        if status == 409:
            self.refuse(
                "has not the weights of this run any more, since another run has given it others, or it was started "
                "anew: start one for each run, and go on with --resume"
            )
        try:
            sentence = str(json.loads(said)["error"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(self._stranger()) from error
        self.refuse(f"refuses: {printable(sentence)[:500].rstrip('.')}")

    def _silent(self, error: Exception) -> str:
        why = f"no answer within {self._seconds:g} s" if isinstance(error, TimeoutError) else _words(error)
        if self._answered:
            return (
                f"the sampler at {self.url} answers no more ({why}): see what it wrote last, start it again, and go "
                "on with --resume."
            )
        return (
            f"'sampler.server' {self.url}: nobody answers there ({why}): start a sampler with 'rlgf serve-sampler' and "
            "this recipe, or mend the address."
        )

    def _stranger(self) -> str:
        return (
            f"'sampler.server' {self.url}: what answers there is no sampler of rlgf: start one with 'rlgf "
            "serve-sampler' and this recipe, or mend the address."
        )


def _words(error: Exception) -> str:
    return one_line(getattr(error, "strerror", None) or error, 200) or type(error).__name__


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
        self._connection = Connection(str(config.server), seconds)
        found = self._connection.description()
        self._dtype: torch.dtype = getattr(torch, found.dtype)
        self._wanted = described(language_model, config.engine, self._dtype, max_tokens)
        self._connection.require(differs(found, self._wanted))
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
        """Bring the server the weights as they are now; see `bring_weights`.

        Raises:
            UserError: the server is gone, serves another run meanwhile, or does not take the weights.
        """
        first = self._run is None
        if first:
            self._run = distributed.gathered(secrets.token_hex(8))[0]
        before, self._number = self._weights, self._number + 1
        with self.language_model.running() as model:
            if distributed.is_main():
                found = self._connection.description()
                self._connection.require(differs(found, self._wanted))
                if not first and found.weights not in (before, None):
                    self._connection.refuse("has been given weights by another run: start one for each run")
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
        said = self._connection.post("/texts", asked.model_dump_json().encode(), "application/json")
        texts = self._connection.read(Written, said).texts
        if len(texts) != len(beginnings) or not all(len(t.ids) == len(t.logprobs) > 0 for t in texts):
            self._connection.refuse("gave other texts than it was asked for")
        return [text.continuation for text in texts]

    def _send(self, weights: Mapping[str, Tensor]) -> None:
        groups = grouped(weights.items(), self._dtype)
        for number, group in enumerate(groups):
            piece = Piece(weights=self._weights, number=number, of=len(groups))
            path = f"/weights?{urlencode(piece.model_dump())}"
            self._connection.post(path, packed(group, self._dtype), "application/octet-stream")


def require_server(config: SamplerConfig, max_tokens: int) -> None:
    """
    Raises:
        UserError: no sampler answers at the address, or another engine, or one for shorter texts.
    """
    connection = Connection(str(config.server), CONNECTING)
    found = connection.description()
    changes = {"protocol": PROTOCOL, "engine": config.engine, "max_tokens": max_tokens}
    connection.require(differs(found, found.model_copy(update=changes)))
