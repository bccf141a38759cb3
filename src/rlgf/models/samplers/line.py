"""The way to a sampler's server: HTTP, and a sentence for whatever goes wrong on it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import NoReturn, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from rlgf.errors import UserError
from rlgf.models.samplers.wire import TOKEN_VARIABLE, Description, token

_M = TypeVar("_M", bound=BaseModel)

CONNECTING = 10.0
"""Seconds to wait for a connection."""


class Line:
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
        # From outside, so without what could move a terminal's cursor.
        clean = "".join(c if c.isprintable() else " " for c in sentence)[:500].rstrip(".")
        self.refuse(f"refuses: {clean}")

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
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split())[:200] or type(error).__name__
