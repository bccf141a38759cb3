"""A server is told what the recipe says, and an environment that cannot be used is named."""

from __future__ import annotations

import sys

import pytest
from http_toys import guide, requests

from faulty_server import FaultyServer
from rlgf.errors import UserError
from rlgf.guides import HTTPGuideConfig
from rlgf.guides.client import openai_client


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "socks5://me:secret@127.0.0.1:1"),
        ("HTTP_PROXY", "socks://me:secret@127.0.0.1:1"),
        ("HTTP_PROXY", "http://me:secret@127.0.0.1:port"),
        ("SSL_CERT_FILE", "/no/such/file"),
        ("SSL_CERT_FILE", __file__),
    ],
)
def test_an_environment_that_cannot_be_used_is_one_sentence(
    server: FaultyServer, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)  # which a proxy of the first kind needs
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=rf"cannot be asked.*{variable}") as caught:
        guide(server)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_account_of_openai_is_told_to_openai_alone(
    server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    guide(server).write(requests(1))
    guide(server, headers={"openai-project": "mine"}).write(requests(1))
    sent = [{name.lower(): value for name, value in headers.items()} for headers in server.headers]
    assert [one.get("openai-organization") for one in sent] == [None, None]
    assert [one.get("openai-project") for one in sent] == [None, "mine"]
    told = openai_client(HTTPGuideConfig(url="https://api.openai.com/v1", model="m")).default_headers
    assert (told["OpenAI-Organization"], told["OpenAI-Project"]) == ("org-1", "proj-1")


def test_headers_of_the_environment_are_told_to_openai_alone(
    server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the key is that of the recipe, whatever key stands among them."""
    monkeypatch.setenv(
        "OPENAI_CUSTOM_HEADERS", "X-Team: one\nx-secret: two\nAuthorization: Bearer three\n\nfour"
    )
    monkeypatch.setenv("KEY", "five")
    guide(server, headers={"x-team": "mine"}, key_variable="KEY").write(requests(1))
    guide(server, headers={"authorization": "Basic $KEY"}).write(requests(1))
    with_list, without = ({name.lower(): value for name, value in one.items()} for one in server.headers)
    assert (with_list["x-team"], with_list["authorization"]) == ("mine", "Bearer five")
    assert without["authorization"] == "Basic five"
    assert "x-team" not in without
    assert not {"x-secret", "four"} & with_list.keys()
    told = openai_client(HTTPGuideConfig(url="https://api.openai.com/v1", model="m")).default_headers
    assert told["X-Team"] == "one"
