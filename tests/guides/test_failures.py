"""Which failures are worth another attempt, over real sockets."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from http_toys import MADE, requests
from reply_toys import chat, error, guide_of

from faulty_server import PAGE, FaultyServer, serving
from rlgf.errors import UserError
from rlgf.guides import HTTPGuide, HTTPGuideConfig
from rlgf.guides.failures import passes

LENGTH = error(
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    param="max_tokens",
    code="unsupported_parameter",
)
TEMPERATURE = error(
    "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) value is supported.",
    param="temperature",
    code="unsupported_value",
)
BOTH = error("`temperature` and `top_p` cannot both be specified for this model. Please use only one.")
QUOTA = error(
    "You exceeded your current quota, please check your plan and billing details.", code="insufficient_quota"
)
BEHIND = error(
    "Provider returned error",
    code=400,
    metadata={"raw": '{"error":{"message":"temperature is not supported with this model"}}'},
)
TOP_P = {"error": "Input validation error: `top_p` must be > 0.0 and < 1.0", "error_type": "validation"}


@pytest.mark.parametrize(
    ("status", "reply", "message"),
    [
        (400, LENGTH, r"refuses 'max_tokens'.*'guide.length_parameter: max_completion_tokens'"),
        (400, TEMPERATURE, r"refuses 'temperature'.*'guide.temperature: null'"),
        (400, BOTH, r"'guide.temperature: null' or leave it out with 'guide.top_p: null'"),
        (
            422,
            {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted: seed"}]},
            "'guide.send_seed: false'",
        ),
        (
            400,
            error("max_tokens is too large: 6. This model supports at most 4 tokens, invalid value."),
            "refuses the request.*rollout's lengths",
        ),
        (
            400,
            error("Unrecognized request argument supplied: chat_template_kwargs"),
            "refuses 'chat_template_kwargs'.*take 'chat_template_kwargs' out of 'guide.extra_body'",
        ),
        (400, BEHIND, "temperature is not supported.*'guide.temperature: null'"),
        (200, BEHIND, "temperature is not supported.*'guide.temperature: null'"),
        (422, TOP_P, "'guide.top_p: null'"),
        (400, error("max_tokens must be <= 4"), "refuses the request.*rollout's lengths"),
        (404, PAGE, "has no chat for the model 'letters'.*'guide.style: completions'"),
        (
            200,
            {"error": "Unexpected endpoint or method. (POST /chat/completions)"},
            "has no chat.*Unexpected endpoint",
        ),
        (429, QUOTA, "quota is spent.*pay for more"),
        (429, error("No quota", type="insufficient_quota"), "quota is spent"),
        (402, error("Insufficient credits"), "quota is spent"),
        (200, QUOTA, "quota is spent"),
        (200, error("No such model", code=404), "has no chat for the model 'letters'"),
        (200, error("context length exceeded", code=400), "too long for its model"),
        (
            422,
            {"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 1500"},
            "too long for its model.*longer context.*'rollout.max_response_tokens'",
        ),
        (200, {"object": "error", "message": "no such model", "code": 404}, "has no chat.*no such model"),
        (
            200,
            {"choices": [chat("", None)["choices"][0] | {"error": {"code": 400, "message": "too long"}}]},
            "too long for its model",
        ),
        (501, error("no chat here"), "has no chat for the model 'letters'"),
        (200, PAGE, "a web page instead of JSON.*proxy"),
        (403, PAGE, r"what stands before the server.*mend the address, the proxy"),
        (403, error("Your account was flagged by our moderation."), r"wants a key|refuses this key"),
        (403, PAGE.replace("Bad gateway", "flagged"), "what stands before the server"),
        (413, error("payload too large"), "too long for its model"),
        (200, "data: {}\n\ndata: [DONE]", r"a stream instead of one answer"),
        (200, ": PROCESSING\n\ndata: {}\n\n", r"a stream instead of one answer"),
    ],
)
def test_what_waiting_does_not_mend_is_asked_once(status: int, reply: Any, message: str) -> None:
    with serving(FaultyServer(always=(status, reply))) as server:
        with pytest.raises(UserError, match=message) as caught:
            guide_of(server, style="chat", extra_body={"chat_template_kwargs": {}}).write(requests(1))
        assert sum(server.seen.values()) == 1
    assert "\n" not in str(caught.value)
    assert "<html" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "reply", "said"),
    [
        (429, error("Rate limit reached. Add a payment method at https://x/account/billing"), "Rate limit"),
        (429, error("You exceeded your current quota. Please retry in 30s."), "retry in 30s"),
        (408, error("timed out"), "timed out"),
        (503, PAGE, "status 503 with a web page"),
        (424, error("CUDA error"), "CUDA error"),
        (498, error("capacity exceeded"), "capacity exceeded"),
        (200, {"detail": "Not Found"}, "an error: Not Found"),
        (200, error("overloaded", code=529), "an error: overloaded"),
        (200, {"choices": [], "error": None}, "without choices"),
        (200, [1], "without choices"),
        (200, chat(None, None), "without text"),
        (200, {"choices": [{"finish_reason": "stop", "message": {"role": "assistant"}}]}, "without text"),
        (200, chat("", None), "without text"),
        (200, chat("", "unheard of"), "without text"),
        (200, chat("It was gr", "error"), r"gave up on \(error\)"),
        (200, chat("", "Network_Error"), "gave up on"),
        (200, chat("It was gr", "insufficient_system_resource"), "gave up on"),
        (
            200,
            {"choices": [chat("It was gr", None)["choices"][0] | {"error": {"code": 502}}]},
            "an error.*502",
        ),
        (200, "", "no JSON"),
        (200, "Internal error", "no JSON"),
        (200, "[" * 100_000, "no JSON"),
    ],
)
def test_what_waiting_may_mend_is_asked_again_until_the_patience_ends(
    status: int, reply: Any, said: str
) -> None:
    with serving(FaultyServer(always=(status, reply))) as server:
        with pytest.raises(UserError, match=f"no usable answer within 1 s.*{said}") as caught:
            guide_of(server, style="chat", patience=0.6).write(requests(1))
        assert sum(server.seen.values()) > 1
    assert "<html" not in str(caught.value)


def test_an_address_that_does_not_speak_tls_is_one_sentence_at_once() -> None:
    with serving(FaultyServer()) as server:
        writer = HTTPGuide(
            HTTPGuideConfig(url=server.url.replace("http:", "https:"), model="letters", cache=None)
        )
        MADE.append(writer)
        started = time.perf_counter()
        with pytest.raises(UserError, match=r"cannot be reached.*write http:// for https://"):
            writer.write(requests(1))
    assert time.perf_counter() - started < 5


def test_a_certificate_that_is_not_trusted_is_one_sentence_at_once(tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.pem"
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=127.0.0.1",
    ]
    made += ["-keyout", str(certificate), "-out", str(tmp_path / "public.pem")]
    subprocess.run(made, check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + (tmp_path / "public.pem").read_text())
    server = FaultyServer()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server):
        writer = HTTPGuide(
            HTTPGuideConfig(url=server.url.replace("http:", "https:"), model="letters", cache=None)
        )
        MADE.append(writer)
        with pytest.raises(UserError, match=r"certificate is not trusted.*SSL_CERT_FILE"):
            writer.write(requests(1))


def test_an_unknown_host_is_one_sentence_at_once() -> None:
    error = openai.APIConnectionError(request=httpx2.Request("POST", "http://no-such-host.invalid"))
    try:
        socket.getaddrinfo("no-such-host.invalid", 80)
    except socket.gaierror as cause:
        error.__cause__ = cause
    assert passes(error) == (error.__cause__ is not None and error.__cause__.errno == socket.EAI_AGAIN)
