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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
)


def answer_to(prompt: str, seed: int, letters: str, length: int) -> str:
    """Letters that follow from what was asked."""
    digest = hashlib.sha256(f"{seed} {prompt}".encode()).digest()
    return "".join(letters[digest[i % len(digest)] % len(letters)] for i in range(length))


class FaultyServer(ThreadingHTTPServer):
    """Serves completions and chat completions of letters."""

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
        keep: bool = True,
    ) -> None:
        """
        Args:
            faults: what goes wrong, in turns.
            share: how many of the attempts fail.
            latency: seconds that each answer takes.
            hang: seconds that a hanging attempt lasts; longer than the client waits.
            retry_after: seconds that a rate limit asks for.
            replies: texts to give in turns, instead of letters.
            keep: remember the bodies of requests.
        """
        super().__init__(address, _Handler)
        self.faults, self.share, self.latency, self.hang = faults, share, latency, hang
        self.letters, self.key, self.model, self.context = letters, key, model, context
        self.replies, self.keep, self.retry_after = replies, keep, retry_after
        self.seen: Counter[str] = Counter()
        """Attempts by what they ask."""
        self.answered: Counter[str] = Counter()
        """Whole answers by what they answer."""
        self.bodies: list[dict[str, Any]] = []
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
        self._send(200, {"object": "list", "data": [{"id": self.server.model, "object": "model"}]})

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
        if server.key is not None and self.headers.get("authorization") != f"Bearer {server.key}":
            given = self.headers.get("authorization", "")
            return self._send(401, {"error": {"message": f"wrong key: {given}"}})
        chat = self.path.endswith("/chat/completions")
        if body["model"] != server.model or not self.path.startswith("/v1/"):
            return self._send(404, {"error": {"message": f"no model {body['model']} at {self.path}"}})
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        if len(prompt) + body["max_tokens"] > server.context:
            return self._send(400, {"error": {"message": f"the context holds {server.context} tokens"}})
        time.sleep(server.latency)
        reply = self._reply(body, prompt, chat)
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
            text, reason = answer_to(prompt, body["seed"], server.letters, body["max_tokens"]), "length"
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
        elif fault == "half of the JSON":
            text = json.dumps(reply).encode()
            self._head(200, len(text) // 2, {})
            self.wfile.write(text[: len(text) // 2])
        elif fault == "no choices":
            self._send(200, {**reply, "choices": []})
        elif fault == "no text":
            self._send(200, {**reply, "choices": [{"index": 0, "finish_reason": "stop"}]})
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

    def _send(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        text = json.dumps(body).encode()
        self._head(status, len(text), headers or {})
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
