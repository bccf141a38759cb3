"""A policy on the hub: over real sockets, with a server that speaks the few calls that an upload needs."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from typer.testing import CliRunner

from rlgf.cli import app
from rlgf.errors import UserError
from rlgf.run.hub import push_to_hub


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_GET(self) -> None:
        self.answer({"id": "owner/name", "private": self.server.private, "tags": [], "siblings": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.tokens.add(self.headers["Authorization"])
        address = f"{self.server.address}/owner/name"
        if self.server.refusal is not None:
            self.answer({"error": "No right to write."}, self.server.refusal)
        elif self.path.endswith("/repos/create"):
            self.server.made = json.loads(body)
            self.server.private &= self.server.made.get("visibility") == "private"
            self.answer({"url": address, "name": "owner/name"})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            regular = {"uploadMode": "regular", "shouldIgnore": False}
            self.answer({"files": [{"path": name, **regular} for name in names]})
        elif "/commit/" in self.path:
            files = [json.loads(line)["value"] for line in body.splitlines()]
            self.server.files = {f["path"]: base64.b64decode(f["content"]) for f in files if "path" in f}
            self.answer({"commitUrl": f"{address}/commit/1", "commitOid": "1"})
        else:
            self.answer({})

    def answer(self, reply: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class HubServer(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Hub)
        self.private, self.refusal = True, None
        self.made: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.tokens = set[str]()

    private: bool
    refusal: int | None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def hub() -> Iterator[HubServer]:
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The server in the place of the hub, for this process."""
    with hub() as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        yield server


@pytest.fixture
def run(tmp_path: Path) -> Path:
    policy = tmp_path / "run" / "policy"
    policy.mkdir(parents=True)
    (policy / "config.json").write_text("{}")
    (policy / "README.md").write_text("---\nlibrary_name: transformers\n---\n\n# A card\n")
    (policy / "model.safetensors").write_bytes(bytes(range(256)))
    (tmp_path / "run" / "metrics.jsonl").write_text("{}\n")
    return tmp_path / "run"


def test_the_command_uploads_policy_and_card_and_nothing_else(run: Path) -> None:
    with hub() as server:
        own = {"HF_ENDPOINT": server.address, "HF_TOKEN": "hf_of_a_test", "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-m", "rlgf", "push", str(run), "--to", "owner/name"]
        done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"Uploaded to {server.address}/owner/name." in done.stdout
    assert server.made == {"name": "name", "organization": "owner", "visibility": "private"}
    assert {*server.files} == {"README.md", "config.json", "model.safetensors"}
    assert server.files["model.safetensors"] == bytes(range(256))
    assert server.tokens == {"Bearer hf_of_a_test"}


def test_what_is_public_is_said_to_be(run: Path, reached: HubServer) -> None:
    reached.private = False
    with pytest.raises(UserError, match="owner/name is public already"):
        push_to_hub(run / "policy", "owner/name")
    assert not reached.files
    done = CliRunner().invoke(app, ["push", str(run), "--to", "owner/name", "--public"])
    assert done.exit_code == 0, done.output
    assert reached.made["visibility"] == "public"
    assert "README.md" in reached.files


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (403, r"refuses owner/name \(403: No right to write\): use a token that may write to owner\."),
        (500, r"refuses owner/name \(500: .*try again later\."),
    ],
)
def test_a_refusal_is_one_sentence(run: Path, reached: HubServer, status: int, said: str) -> None:
    reached.refusal = status
    with pytest.raises(UserError, match=said):
        push_to_hub(run, "owner/name")


def test_without_a_network_or_a_token_it_says_so(
    run: Path, reached: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub() as gone:
        address = gone.address
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    with pytest.raises(UserError, match=f"{address} cannot be reached .*is there a network"):
        push_to_hub(run, "owner/name")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        push_to_hub(run, "owner/name")
    monkeypatch.setattr("rlgf.run.hub.get_token", lambda: None)
    with pytest.raises(UserError, match="no token for the Hugging Face hub: run `hf auth login`"):
        push_to_hub(run, "owner/name")


@pytest.mark.parametrize("name", ["name", "owner/name/more", "owner/na me", ""])
def test_a_name_that_is_none_is_refused(run: Path, name: str) -> None:
    with pytest.raises(UserError, match="give owner/name"):
        push_to_hub(run, name)


def test_a_run_that_has_not_finished_has_nothing_to_push(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no trained policy"):
        push_to_hub(tmp_path, "owner/name")


def test_the_policy_of_an_earlier_end_is_not_taken_for_the_newest(run: Path) -> None:
    (run / "checkpoints").mkdir()
    with pytest.raises(UserError, match="goes on from an earlier end"):
        push_to_hub(run, "owner/name")
