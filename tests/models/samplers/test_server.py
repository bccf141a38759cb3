"""A sampler in a process of its own: what travels, who is let in, and what is said when it does not do."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch

from engines import ASKED, client, serving
from rlgf.errors import UserError
from rlgf.models.language_model import LanguageModel
from rlgf.models.samplers import bring_weights
from rlgf.models.samplers.desk import Desk
from rlgf.models.samplers.server import SamplerServer
from rlgf.models.samplers.wire import TOKEN_VARIABLE, Asked, Piece
from rlgf.models.sampling import Sampling
from toys import letter_gpt

HEADERS = {"Content-Type": "application/json"}


def test_sets_are_not_kept(url: str) -> None:
    served = client(url, letter_gpt())
    bring_weights(served)
    served.write(ASKED, Sampling(top_k=2))
    with pytest.raises(UserError, match=r"'sampler.server' does not say which tokens top-k and top-p left"):
        served.write(ASKED, Sampling(top_k=2), keep_sets=True)


# Who is let in, and with what.


def test_open_addresses_need_a_token_and_everybody_has_to_send_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=f"at 0.0.0.0 other machines can reach .* {TOKEN_VARIABLE}"):
        SamplerServer(desk, host="0.0.0.0")
    with serving(desk, token="long and random") as url:
        for given in ("", "another"):
            monkeypatch.setenv(TOKEN_VARIABLE, given)
            with pytest.raises(
                UserError, match=f"asks for a token: set the environment variable {TOKEN_VARIABLE}"
            ):
                client(url, letter_gpt())
        monkeypatch.setenv(TOKEN_VARIABLE, "été")
        with pytest.raises(UserError, match="must be one line of ASCII"):
            client(url, letter_gpt())
        monkeypatch.setenv(TOKEN_VARIABLE, "long and random\n")
        bring_weights(client(url, letter_gpt()))


def test_an_address_that_is_taken_is_one_sentence(desk: Desk, url: str) -> None:
    with pytest.raises(UserError, match=r"cannot listen at 127.0.0.1, port .* choose another '--port'"):
        SamplerServer(desk, port=int(str(urlsplit(url).port)))


def ask(url: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[int, str]:
    """The status and the sentence that a request gets which our own client would not send."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request("POST" if body else "GET", path, body or None, headers or {})
    answer = connection.getresponse()
    said = json.loads(answer.read())
    connection.close()
    return answer.status, said.get("error", "")


def texts(**changes: Any) -> bytes:
    one = {"prompt": [1], "written": [], "limit": 3, "seed": 1, "position": 0, **changes}
    return json.dumps({"weights": "w", "sampling": {}, "beginnings": [one]}).encode()


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "said"),
    [
        ("/", b"", {}, 404, "nothing at /"),
        ("/sampler", b"", {"Host": "evil.example:80"}, 403, "by its own address alone"),
        ("/texts", texts(), {"Content-Type": "text/plain"}, 415, "application/json"),
        ("/texts", b"{", HEADERS, 400, "Invalid JSON"),
        ("/texts", texts(limit=0), HEADERS, 400, "no room to go on"),
        ("/texts", texts(limit=64), HEADERS, 400, "a text of up to 65 tokens is longer than its 64"),
        ("/texts", texts(prompt=[]), HEADERS, 400, "nothing to begin with"),
        ("/texts", texts(prompt=[5]), HEADERS, 400, "not among the 5 of its model"),
        ("/texts", texts(prompt=[-1]), HEADERS, 400, "not among the 5 of its model"),
        ("/texts", texts(prompt=["a"]), HEADERS, 400, "valid integer"),
        ("/texts", texts(more=1), HEADERS, 400, "more"),
        ("/texts", texts(), HEADERS, 409, "has not the weights"),
        ("/texts", b"x" * 10, {**HEADERS, "Content-Length": str(2**40)}, 413, "longer than"),
        ("/weights", b"x", {"Content-Type": "application/octet-stream"}, 400, "weights"),
        (
            "/weights?weights=w&number=0&of=1",
            b"x" * 99,
            {"Content-Type": "application/octet-stream"},
            400,
            "header",
        ),
        ("/weights?weights=w&number=0&of=1", b"x", HEADERS, 415, "octet-stream"),
    ],
)
def test_what_comes_from_outside_is_not_trusted(
    url: str, path: str, body: bytes, headers: dict[str, str], status: int, said: str
) -> None:
    found = ask(url, path, body, headers)
    assert found[0] == status
    assert said in found[1]


def test_pieces_come_in_their_order_or_not_at_all(desk: Desk, own: LanguageModel) -> None:
    given = letter_gpt(seed=0).model.get_input_embeddings().weight.detach()
    weights = {"transformer.wte.weight": given}
    with serving(desk):
        desk.take(Piece(weights="w", number=0, of=3), weights)
        assert desk.description.weights is None
        with pytest.raises(UserError, match="another process has sent it weights meanwhile"):
            desk.take(Piece(weights="other", number=1, of=3), weights)
        with pytest.raises(UserError, match="has no weight 'x'"):
            desk.take(Piece(weights="w", number=1, of=3), {**weights, "x": torch.ones(1)})
        with pytest.raises(UserError, match="meanwhile"):
            desk.take(Piece(weights="w", number=1, of=3), weights)
        desk.take(Piece(weights="w", number=0, of=1), weights)
        assert desk.description.weights == "w"
        written = desk.write(Asked(weights="w", sampling=Sampling(), beginnings=ASKED))
    assert len(written.texts) == len(ASKED)
    assert torch.equal(own.model.get_input_embeddings().weight, given)
