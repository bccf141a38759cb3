"""Why a server refused, and what to write into the recipe."""

from __future__ import annotations

import re
from typing import Any

import httpx2
import openai
import pytest
from reply_toys import chat, error, guide_of

from faulty_server import FaultyServer, serving
from rlgf.errors import UserError
from rlgf.guides import Request
from rlgf.guides.failures import passes, remedy


def test_an_empty_prompt_is_sent_and_its_refusal_says_what_to_do() -> None:
    with serving(FaultyServer()) as server:
        guide_of(server).write([Request("", 4, 0)])
        assert server.bodies[0]["prompt"] == ""
    with (
        serving(FaultyServer(always=(400, error("prompt must not be empty")))) as server,
        pytest.raises(UserError, match=r"refuses an empty prompt.*'guide.style: chat'"),
    ):
        guide_of(server).write([Request("", 4, 0)])


def refused(**settings: Any) -> str:
    with serving(FaultyServer(**settings)) as server, pytest.raises(UserError) as caught:
        guide_of(server, style="chat", headers={"X-Gateway-Key": "$KEY"}).write([Request("It was ", 4, 0)])
    return str(caught.value)


def test_a_server_that_has_moved_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "secret-3")
    with serving(FaultyServer()) as other:
        said = refused(always=(307, chat("good"), {"location": other.url}))
        assert f"the server has moved to {other.url}: write that address" in said
        assert not other.headers


def test_what_a_server_says_cannot_steer_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "secret-3")
    assert refused(always=(400, error("\x1b[2J red"))).isprintable()
    assert refused(model="\x1b[2J other").isprintable()


@pytest.mark.parametrize("spelled", ["a/b+c", r"a\/b+c", r"a\u002fb\u002bc", r"a\\/b+c"])
def test_a_secret_is_masked_however_it_is_spelled(monkeypatch: pytest.MonkeyPatch, spelled: str) -> None:
    monkeypatch.setenv("KEY", "a/b+c")
    assert "bad key ***" in refused(always=(400, error(f"bad key {spelled}")))


def test_of_many_models_the_nearest_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "x")
    many = [{"id": f"vendor/model-{i}"} for i in range(300)] + [{"id": "letters-2"}]
    said = refused(always=(404, error("no such model")), listed={"data": many})
    assert "did you mean 'letters-2'" in said
    assert len(said) < 600


def test_a_server_that_does_not_go_on_with_a_message_is_one_sentence() -> None:
    reply = error("This model does not support assistant message prefill.")
    with (
        serving(FaultyServer(always=(400, reply))) as server,
        pytest.raises(UserError, match=r"does not continue a message.*'guide.continue_message: false'"),
    ):
        guide_of(server, style="chat", continue_message=True).write(
            [Request("It was", 4, 0, prompt_length=3)]
        )


@pytest.mark.parametrize("listed", [{"data": []}, {"data": None}])
def test_a_server_that_lists_no_models_names_none(monkeypatch: pytest.MonkeyPatch, listed: Any) -> None:
    monkeypatch.setenv("KEY", "x")
    assert "choose from" not in refused(always=(404, error("model 'letters' not found")), listed=listed)


@pytest.mark.parametrize(
    "sent",
    [
        error("gpt-nope is not a valid model ID", code=400),  # OpenRouter
        error("The model `nope` has been decommissioned and is no longer supported."),  # Groq
        {"object": "error", "message": "Invalid model: nope", "type": "invalid_model"},  # Mistral
        error("Model Not Exist", type="invalid_request_error"),  # DeepSeek
        {"code": "Client specified an invalid argument", "error": "Model not found: nope"},  # xAI
        error("nope is not here", code="model_not_found"),
        {"error": "model 'nope' not found"},
    ],
)
@pytest.mark.parametrize("listed", [{}, 404])
def test_a_model_that_is_not_there_with_status_400_is_said_as_with_404(
    monkeypatch: pytest.MonkeyPatch, sent: Any, listed: Any
) -> None:
    monkeypatch.setenv("KEY", "x")
    said = refused(always=(400, sent), model="other", listed=listed)
    assert "has no chat for the model 'letters' (status 400: " in said
    assert "'guide.model' or 'guide.style'" in said
    assert ("choose from other" in said) == (listed == {})


@pytest.mark.parametrize("said", ["temperature is not supported with this model", "odd request to model x"])
def test_a_model_that_is_named_in_another_refusal_is_not_missing(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("KEY", "x")
    assert "has no chat" not in refused(always=(400, error(said)))


@pytest.mark.parametrize(
    "sent",
    [
        [error("API key not valid. Please pass a valid API key.", code=400)],  # Gemini
        {"code": "invalid-argument", "error": "Incorrect API key provided: x*. You can obtain one."},  # xAI
    ],
)
def test_a_key_that_is_refused_with_status_400_is_said_as_with_401(
    monkeypatch: pytest.MonkeyPatch, sent: Any
) -> None:
    monkeypatch.setenv("KEY", "secret-1")
    monkeypatch.setenv("OPENAI_API_KEY", "secret-2")
    assert "wants a key; the environment variable OPENAI_API_KEY is set, and was refused" in refused(
        always=(400, sent)
    )


@pytest.mark.parametrize(
    ("status", "sent", "said"),
    [
        (400, [error("Precondition failed", code=400, status="FAILED_PRECONDITION")], "Precondition failed"),
        (424, {"error": "Request failed", "error_type": "generation"}, "Request failed"),
        (400, {"detail": "No such thing"}, "No such thing"),
        (
            422,
            {"detail": [{"loc": ["body", "n"], "msg": "wrong"}, {"loc": ["body", "m"], "msg": "missing"}]},
            "body.n: wrong; body.m: missing",
        ),
        (400, {"code": "invalid", "error": "No such thing"}, "No such thing"),
        (400, {"unheard of": 1}, '{"unheard of": 1}'),
    ],
)
def test_a_server_is_quoted_without_its_json(
    monkeypatch: pytest.MonkeyPatch, status: int, sent: Any, said: str
) -> None:
    """In the forms of Gemini, TGI, FastAPI and xAI."""
    monkeypatch.setenv("KEY", "x")
    with serving(FaultyServer(always=(status, sent))) as server, pytest.raises(UserError) as caught:
        guide_of(server, style="chat", patience=0.1).write([Request("It was ", 4, 0)])
    assert re.search(rf"status {status}: {re.escape(said)}[).]", str(caught.value))


def test_a_quota_that_comes_back_is_known_by_what_stands_beside_the_message() -> None:
    body = [error("You exceeded your current quota.", details=[{"retryDelay": "37s"}])]
    response = httpx2.Response(429, request=_ASKED, json=body)
    assert passes(openai.RateLimitError("quota", response=response, body=body))


NO_TEMPLATE = "default chat template is no longer allowed, so you must provide a chat template"


@pytest.mark.parametrize(("status", "said"), [(404, "This is not a chat model"), (400, NO_TEMPLATE)])
def test_a_model_that_is_there_and_has_no_chat_is_asked_in_the_other_style(
    monkeypatch: pytest.MonkeyPatch, status: int, said: str
) -> None:
    monkeypatch.setenv("KEY", "x")
    sentence = refused(always=(status, error(said)))
    assert "it has the model, so set 'guide.style: completions'" in sentence
    assert "did you mean" not in sentence


def test_advice_fits_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told to start a server that answers; where none is reached, a proxy may stand in between."""
    out_of_order = openai.APIStatusError(
        "out of order", response=httpx2.Response(500, request=_ASKED), body=None
    )
    assert "what the server logs" in remedy(out_of_order)
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    unreached = openai.APIConnectionError(request=_ASKED)
    assert "proxy" not in remedy(unreached)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert "proxy (HTTP_PROXY" in remedy(unreached)


_ASKED = httpx2.Request("POST", "http://127.0.0.1:1/v1/completions")
