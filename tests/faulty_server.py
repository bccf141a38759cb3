"""A real OpenAI-compatible server on loopback that misbehaves on purpose.

What it answers depends on the request alone; whether an attempt fails, on the request and on how
often it has come: so the same requests always end in the same answers, whatever goes wrong between.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any

FAULTS = (
    "rate limit",
    "server error",
    "drop",
    "hang",
    "half of the JSON",
    "no choices",
    "no text",
    "slow",
    "request timeout",
    "overloaded",
    "error in a reply",
    "a proxy's page",
)
PAGE = "<!DOCTYPE html><html><body><h1>Bad gateway</h1></body></html>"


def answer_to(prompt: str, seed: int, letters: str, length: int) -> str:
    """Letters that follow from what was asked."""
    digest = hashlib.sha256(f"{seed} {prompt}".encode()).digest()
    return "".join(letters[digest[i % len(digest)] % len(letters)] for i in range(length))


def letter_scores(text: str, asked: int = 0) -> dict[str, Any]:
    """What a server says of a text whose tokens are its characters, and of one more token after it: each has a
    log-probability that follows from the text up to it."""
    tokens = [*text, "a"]
    logprobs = [
        -(hashlib.sha256(text[: end + 1].encode()).digest()[0] + 1) / 64 for end in range(len(tokens))
    ]
    offsets = list(range(len(tokens)))
    return {"tokens": tokens, "token_logprobs": [None, *logprobs[1:]], "text_offset": offsets}


class FaultyServer(ThreadingHTTPServer):
    """Serves completions, chat completions and log-probabilities of letters."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self,
        address: tuple[str, int] = ("127.0.0.1", 0),
        *,
        faults: Sequence[str] = (),
        share: float = 0.0,
        latency: float = 0.0,
        hang: float = 1.0,
        retry_after: float = 0.02,
        letters: str = "abcd",
        key: str | None = None,
        model: str = "letters",
        context: int = 10_000,
        replies: Sequence[str] | None = None,
        always: tuple[int, Any] | tuple[int, Any, dict[str, str]] | None = None,
        listed: Mapping[str, Any] | int = MappingProxyType({}),
        keep: bool = True,
        scores: Callable[[str, int], dict[str, Any] | None] = letter_scores,
    ) -> None:
        """
        Args:
            faults: what goes wrong, in turns.
            share: how many of the attempts fail.
            latency: seconds that each answer takes.
            hang: seconds that a hanging or dripping attempt lasts; longer than the client waits.
            retry_after: seconds that a rate limit asks for.
            replies: texts to give in turns, instead of letters.
            always: a status, what is sent with it and headers, whatever is asked: text as a page, anything else as JSON.
            listed: what the list of models says besides the name, or the status where there is no such list.
            keep: remember the bodies of requests.
            scores: what is said of a text that is to be echoed with log-probabilities, and how often it was asked for.
        """
        super().__init__(address, _Handler)
        self.faults, self.share, self.latency, self.hang = faults, share, latency, hang
        self.letters, self.key, self.model, self.context = letters, key, model, context
        self.replies, self.keep, self.retry_after = replies, keep, retry_after
        self.scores = scores
        self.always: tuple[int, Any] | tuple[int, Any, dict[str, str]] | None = always
        self.listed: Mapping[str, Any] | int = listed
        self.seen: Counter[str] = Counter()
        """Attempts by what they ask."""
        self.answered: Counter[str] = Counter()
        """Whole answers by what they answer."""
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def fault(self, asked: str, attempt: int) -> str | None:
        """What goes wrong with an attempt, if anything."""
        number = int.from_bytes(hashlib.sha256(f"{asked} {attempt}".encode()).digest()[:8], "big")
        failing = self.faults and number % 1000 < 1000 * self.share
        return self.faults[number // 1000 % len(self.faults)] if failing else None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up waiting is no error of the server's."""


class _Handler(BaseHTTPRequestHandler):
    server: FaultyServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        listed = self.server.listed
        if isinstance(listed, int):
            return self._send(listed, {"error": {"message": "no such route"}})
        model = {"id": self.server.model, "object": "model", **listed}
        return self._send(200, {"object": "list", "data": listed.get("data", [model])})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        body = json.loads(raw)
        server = self.server
        with server.lock:
            asked = hashlib.sha256(raw).hexdigest()
            attempt = server.seen[asked]
            server.seen[asked] += 1
            if server.keep:
                server.bodies.append(body)
                server.headers.append(dict(self.headers))
        if server.always is not None:
            return self._send(*server.always)
        if server.key is not None and self.headers.get("authorization") != f"Bearer {server.key}":
            given = self.headers.get("authorization", "")
            return self._send(401, {"error": {"message": f"wrong key: {given}"}})
        chat = self.path.endswith("/chat/completions")
        if body["model"] != server.model or not self.path.startswith("/v1/"):
            return self._send(404, {"error": {"message": f"no model {body['model']} at {self.path}"}})
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        length = body.get("max_tokens", body.get("max_completion_tokens"))
        if len(prompt) + length > server.context:
            return self._send(400, {"error": {"message": f"the context holds {server.context} tokens"}})
        time.sleep(server.latency)
        reply = self._reply(body, prompt, chat)
        if body.get("echo"):
            reply["choices"][0]["text"] = prompt + "a"
            reply["choices"][0]["logprobs"] = server.scores(prompt, attempt)
        if not self._misbehaves(server.fault(asked, attempt), reply):
            with server.lock:
                server.answered[asked] += 1
            self._send(200, reply)
        return None

    def _reply(self, body: dict[str, Any], prompt: str, chat: bool) -> dict[str, Any]:
        server = self.server
        if server.replies is not None:
            text, reason = server.replies[len(server.bodies) % len(server.replies)], "stop"
        else:
            length = body.get("max_tokens", body.get("max_completion_tokens"))
            text, reason = answer_to(prompt, body.get("seed", 0), server.letters, length), "length"
        content = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        used = {"prompt_tokens": len(prompt), "completion_tokens": len(text)}
        return {
            "id": "1",
            "object": "chat.completion" if chat else "text_completion",
            "created": 0,
            "model": server.model,
            "choices": [{"index": 0, "finish_reason": reason, "logprobs": None, **content}],
            "usage": {**used, "total_tokens": sum(used.values())},
        }

    def _misbehaves(self, fault: str | None, reply: dict[str, Any]) -> bool:
        """Do what a fault says; False where the answer is still to be sent."""
        if fault == "rate limit":
            self._send(
                429, {"error": {"message": "slow down"}}, {"retry-after": str(self.server.retry_after)}
            )
        elif fault == "server error":
            self._send(500, {"error": {"message": "out of order"}})
        elif fault == "drop":
            self.close_connection = True
            self.connection.close()
        elif fault == "hang":
            time.sleep(self.server.hang)
            self.close_connection = True
        elif fault == "drip":
            self._head(200, 10_000, {})
            for _ in range(100):
                self.wfile.write(b"\n")
                time.sleep(self.server.hang / 100)
        elif fault == "half of the JSON":
            text = json.dumps(reply).encode()
            self._head(200, len(text) // 2, {})
            self.wfile.write(text[: len(text) // 2])
        elif fault == "no choices":
            self._send(200, {**reply, "choices": []})
        elif fault == "no text":
            self._send(200, {**reply, "choices": [{"index": 0, "finish_reason": "stop"}]})
        elif fault in ("request timeout", "overloaded"):
            self._send({"request timeout": 408, "overloaded": 529}[fault], {"error": {"message": fault}})
        elif fault == "error in a reply":
            self._send(200, {"error": {"message": "the model is loading", "code": 503}})
        elif fault == "a proxy's page":
            self._send(502, PAGE)
        elif fault == "slow":
            text = json.dumps(reply).encode()
            self._head(200, len(text), {})
            for i in range(0, len(text), 100):
                self.wfile.write(text[i : i + 100])
                time.sleep(0.005)
            with self.server.lock:
                self.server.answered["slow"] += 1
        else:
            return False
        return True

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        page = isinstance(body, str)
        text = (body if page else json.dumps(body)).encode()
        self._head(status, len(text), (headers or {}) | ({"content-type": "text/html"} if page else {}))
        self.wfile.write(text)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {
            "content-type": "application/json",
            "content-length": str(length),
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def serving(server: FaultyServer) -> Iterator[FaultyServer]:
    """Serve in a thread while the block runs."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
