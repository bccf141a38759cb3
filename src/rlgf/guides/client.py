"""The HTTP client by which a server is asked."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import openai

from rlgf.errors import UserError
from rlgf.guides.http_config import HTTPGuideConfig


def openai_client(config: HTTPGuideConfig) -> openai.OpenAI:
    """A client that asks once, follows nobody elsewhere, and tells a server what the recipe says alone.

    Raises:
        UserError: a header's environment variable is not set, a header cannot hold its value, or the environment names a
            proxy or certificates that cannot be used.
    """
    key, headers = config.key, dict[str, Any](config.resolved_headers())
    address = urlsplit(config.url)
    if not f".{address.hostname}".endswith(".api.openai.com"):
        # The client reads these from the environment, and sends them to any server.
        lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
        names = ("OpenAI-Organization", "OpenAI-Project", *(line.partition(":")[0].strip() for line in lines))
        unasked = {name: openai.Omit() for name in names if name.lower() != "authorization"}
        headers = {**unasked, "Authorization": f"Bearer {key or 'none'}", **headers}
    try:
        return openai.OpenAI(
            base_url=address._replace(query="").geturl(),
            default_query=dict(parse_qsl(address.query)),
            api_key=key or "none",
            default_headers=headers,
            timeout=config.timeout,
            max_retries=0,  # retried here, where an answer without a completion is retried too
            # Redirects would carry secret headers to another host.
            http_client=openai.DefaultHttpxClient(
                follow_redirects=False,
                event_hooks={
                    "request": [_without_none],
                    "response": [partial(_bound, max(config.patience, config.timeout))],
                },
            ),
        )
    except Exception as error:  # of many kinds: of the client, of sockets, of certificates
        raise UserError(
            f"'guide.url' {config.url} cannot be asked ({error}): mend the environment variables of proxies "
            "(HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) and of certificates (SSL_CERT_FILE)."
        ) from error


def _without_none(request: httpx2.Request) -> None:
    """Send no key where there is none, which the client does not allow."""
    if request.headers.get("authorization") == "Bearer none":
        del request.headers["authorization"]


def _bound(seconds: float, response: httpx2.Response) -> None:
    """Let no server send one answer for longer than that."""
    assert isinstance(response.stream, httpx2.SyncByteStream)
    response.stream = _Bounded(response.stream, response.request, time.monotonic() + seconds)


@dataclass
class _Bounded(httpx2.SyncByteStream):
    stream: httpx2.SyncByteStream
    request: httpx2.Request
    until: float

    def __iter__(self) -> Iterator[bytes]:
        for part in self.stream:
            if time.monotonic() > self.until:
                raise openai.APITimeoutError(request=self.request)
            yield part

    def close(self) -> None:
        self.stream.close()
