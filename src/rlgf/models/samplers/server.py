"""A sampler in a process of its own, which the processes of one run ask over HTTP."""

from __future__ import annotations

import hmac
import ipaddress
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load

from rlgf.errors import UserError, one_line, own_traceback
from rlgf.models.samplers.desk import Desk, OtherWeightsError
from rlgf.models.samplers.wire import PIECE, TOKEN_VARIABLE, Asked, Piece, largest_piece


class SamplerServer:
    """Answers as `rlgf.models.samplers.wire` says."""

    def __init__(self, desk: Desk, host: str = "127.0.0.1", port: int = 0, token: str | None = None) -> None:
        """Take hold of the address; nothing is answered before `serve`.

        Args:
            port: 0 takes any that is free.
            token: what everybody has to send; needed where other machines can reach the address.

        Raises:
            UserError: the address cannot be used, or is open to others without a token.
        """
        if not token and not is_own(host):
            raise UserError(
                f"at {host} other machines can reach the sampler: set the environment variable {TOKEN_VARIABLE} to a long "
                "random text, here and where the run trains, or leave '--host' out."
            )
        try:
            self._http = _HTTP((host, port), _Handler)
        except OSError as error:
            raise UserError(
                f"the sampler cannot listen at {host}, port {port} ({error.strerror or error}): choose another '--port' "
                "or '--host'."
            ) from error
        self._http.desk, self._http.token = desk, token

    @property
    def url(self) -> str:
        host, port = self._http.server_address[:2]
        return f"http://{host!s}:{port}"

    def serve(self) -> None:
        """Answer until `close`, which another thread calls, or an interruption. The calling thread does the work."""
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        try:
            self._http.desk.work()
        finally:
            self._http.shutdown()
            self._http.server_close()

    def close(self) -> None:
        self._http.desk.close()


def is_own(host: str) -> bool:
    """Whether a host names this machine to itself alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _HTTP(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # all processes of a run connect at once
    desk: Desk
    token: str | None = None


class _RefusedError(Exception):
    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    """Seconds without a byte from who sends."""
    server: _HTTP

    def do_GET(self) -> None:  # the name that http.server looks for
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _get(self) -> str:
        if self.path != "/sampler":
            raise _RefusedError(404, f"there is nothing at {self.path[:100]}")
        return self.server.desk.description.model_dump_json()

    def _post(self) -> str:
        asked, desk = urlsplit(self.path), self.server.desk
        if asked.path == "/texts":
            # Of a type that no web page can send elsewhere without asking first.
            if self.headers.get_content_type() != "application/json":
                raise _RefusedError(415, "texts are asked for as application/json")
            return desk.write(Asked.model_validate_json(self._body(PIECE))).model_dump_json()
        if asked.path == "/weights":
            if self.headers.get_content_type() != "application/octet-stream":
                raise _RefusedError(415, "weights are sent as application/octet-stream")
            piece = Piece.model_validate(dict(parse_qsl(asked.query)))
            desk.take(piece, load(self._body(largest_piece(desk.own))))
            return "{}"
        raise _RefusedError(404, f"there is nothing at {asked.path[:100]}")

    def _answer(self, function: Any) -> None:
        try:
            self._admit()
            said = function()
        except _RefusedError as error:
            status, sentence = error.status, str(error)
        except UserError as error:
            status, sentence = 409 if isinstance(error, OtherWeightsError) else 400, str(error)
        except (ValidationError, SafetensorError) as error:
            status, sentence = 400, one_line(error, 300)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
            return
        except Exception as error:
            # Our own fault, which who asked cannot mend.
            sys.stderr.write(own_traceback(error))
            status, sentence = 500, f"{type(error).__name__}: {one_line(error, 200)}"
        else:
            self._send(200, said)
            return
        self._send(status, json.dumps({"error": sentence}))

    def _admit(self) -> None:
        """
        Raises:
            _RefusedError: who asks is not to be answered.
        """
        token = self.server.token
        if token:
            given = self.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                raise _RefusedError(401, f"its {TOKEN_VARIABLE} is another one")
        elif not is_own(urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""):
            # A web page that has its own name point here would be let in by a browser.
            raise _RefusedError(403, "it is known by its own address alone")

    def _body(self, most: int) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise _RefusedError(411, "a request must say how long it is")
        if int(length) > most:
            raise _RefusedError(413, f"a request of {length} bytes is longer than {most}")
        found = self.rfile.read(int(length))
        if len(found) != int(length):
            raise ConnectionError("it ended early")
        return found

    def _send(self, status: int, said: str) -> None:
        content = said.encode()
        # What was not read of the request would be taken for the next one.
        self.close_connection = True
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content)
        except (ConnectionError, TimeoutError):
            return

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is said of single requests."""
