"""What servers reply, and what becomes of it, over real sockets: the table of docs/guides.md row by row."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from tenacity import RetryCallState, Retrying
from test_http_guide import RECIPE, requests

from faulty_server import PAGE, FaultyServer, answer_to, serving
from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.guides import HTTPGuide, HTTPGuideConfig, ReplayGuide, ReplayGuideConfig, Request
from rlgf.guides.answer_cache import GuideCache
from rlgf.guides.endpoint import _wait
from rlgf.guides.failures import passes

MADE: list[HTTPGuide] = []


@pytest.fixture(autouse=True)
def _no_key_and_nothing_left_open(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    yield
    while MADE:
        MADE.pop().close()


def guide(server: FaultyServer, **settings: Any) -> HTTPGuide:
    settings = {"model": "letters", "cache": None, "timeout": 2.0, "patience": 20.0} | settings
    made = HTTPGuide(HTTPGuideConfig(url=server.url, **settings))
    MADE.append(made)
    return made


def chat(content: Any, reason: str | None = "stop", usage: Any = None, **message: Any) -> dict[str, Any]:
    choice = {
        "index": 0,
        "finish_reason": reason,
        "message": {"role": "assistant", "content": content, **message},
    }
    return {"object": "chat.completion", "choices": [choice], "usage": usage}


def asked_once(reply: Any, style: str = "chat", **settings: Any) -> tuple[Any, HTTPGuide, int]:
    """The completion of one request to a server that always replies so, the guide, and how often it asked."""
    with serving(FaultyServer(always=(200, reply))) as server:
        writer = guide(server, style=style, **settings)
        (completion,) = writer.write([Request("It was ", 4, 0)])
        return completion, writer, sum(server.seen.values())


# Replies.


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("great", "great"),
        ([{"type": "text", "text": "gre"}, {"type": "text", "text": "at"}], "great"),
        (
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "great"},
            ],
            "great",
        ),
        ([{"type": "reasoning", "text": "hm"}, {"type": "output_text", "text": "great"}], "great"),
        (["gre", "at"], "great"),
        ("<think>He wants praise.\n\nSo:</think>\n\ngreat", "great"),
        ("\n<think></think>great", "great"),
        ("<reasoning>hm</reasoning> great", "great"),
        ("great <think> of it", "great <think> of it"),
        ("great <think>hm</think> of it", "great <think>hm</think> of it"),
        ("He wants praise.</think>\n\ngreat", "great"),
        ("<think>one</think>\n<think>two</think>great", "great"),
        ({"type": "text", "text": "great"}, "great"),
    ],
)
def test_the_answer_is_the_text_without_the_thinking(content: Any, text: str) -> None:
    completion, writer, asked = asked_once(chat(content, reasoning_content="He wants praise."))
    assert (completion.text, completion.finished, asked) == (text, True, 1)
    assert writer.usage.thought_only == 0


@pytest.mark.parametrize(
    "reply",
    [
        chat(None, "length"),
        chat("", "length"),
        chat(None, "MAX_TOKENS"),
        chat("", "length", reasoning_content="Let me think"),
        chat(None, "stop", reasoning="Let me think"),
        chat("<think>Let me think", "length"),
        chat([{"type": "thinking", "thinking": "hm"}], "length", reasoning_content="hm"),
    ],
)
def test_a_model_that_only_thinks_is_one_sentence_and_is_asked_once(reply: dict[str, Any]) -> None:
    with serving(FaultyServer(always=(200, reply))) as server:
        with pytest.raises(UserError, match=r"spent all of its tokens on thinking.*'guide.token_ratio'"):
            guide(server, style="chat").write(requests(1))
        assert sum(server.seen.values()) == 1


def test_a_model_that_thinks_too_long_now_and_then_gives_an_empty_text() -> None:
    with serving(FaultyServer(replies=["<think>Let me", "good"])) as server:
        writer = guide(server, style="chat", concurrency=1)
        texts = sorted(completion.text for completion in writer.write(requests(2)))
        assert texts == ["", "good"]
        assert (writer.usage.thought_only, writer.usage.empty) == (1, 1)
        server.replies = ["<think>Let me"]
        assert writer.write(requests(1, start=2))[0].text == "", "it has answered before"
        accounts = writer.accounts
        resumed = guide(server, style="chat")
        resumed.restore(accounts)
        assert resumed.write(requests(1, start=3))[0].text == ""
        with pytest.raises(UserError, match="spent all of its tokens on thinking"):
            writer.write(requests(8, start=4))
        assert writer.usage.thought_only == 10


@pytest.mark.parametrize(
    "reply",
    [
        chat("Sorry", "content_filter"),
        chat(None, "stop", refusal="I cannot"),
        chat([{"type": "refusal", "refusal": "I cannot"}]),
        chat(None, "tool_calls", tool_calls=[{"id": "1", "type": "function", "function": {"name": "f"}}]),
    ],
)
def test_a_refusal_is_an_empty_text_and_counted(reply: dict[str, Any]) -> None:
    completion, writer, asked = asked_once(reply)
    assert (completion.text, writer.usage.refused, asked) == ("", 1, 1)


@pytest.mark.parametrize(
    ("said", "read", "mended"),
    [
        ("a \ud83d b", "a \ufffd b", 1),
        ("a \ud83d\ude00", "a \U0001f600", 0),
        ("\udc00", "\ufffd", 1),
        (["a \ud83d", "\ude00"], "a \U0001f600", 1),
        ("a \0 b", "a \0 b", 0),
    ],
)
def test_half_characters_are_replaced_and_counted(said: Any, read: str, mended: int) -> None:
    completion, writer, _ = asked_once(chat(said))
    assert completion.text == read
    assert writer.usage.mended == mended


def test_a_prompt_with_half_a_character_is_sent_with_a_sign_in_its_place() -> None:
    with serving(FaultyServer()) as server:
        guide(server).write([Request("smile \ud83d", 4, 0)])
        assert server.bodies[0]["prompt"] == "smile \ufffd"


def test_a_prompt_that_the_server_filters_is_a_refusal() -> None:
    filtered = error("The response was filtered", code="content_filter", param="prompt")
    with serving(FaultyServer(always=(400, filtered))) as server:
        writer = guide(server, style="chat")
        assert writer.write(requests(1))[0].text == ""
        assert (writer.usage.refused, sum(server.seen.values())) == (1, 1)


@pytest.mark.parametrize("content", [None, "", []])
def test_an_answer_that_ends_at_once_is_an_empty_text(content: Any) -> None:
    completion, writer, asked = asked_once(chat(content))
    assert (completion.text, completion.finished, asked) == ("", True, 1)
    assert writer.usage.empty == 1


def test_thinking_in_a_completion_is_text_as_any_other() -> None:
    reply = {"choices": [{"text": "<think>hm</think>", "finish_reason": "stop"}]}
    assert asked_once(reply, style="completions")[0].text == "<think>hm</think>"


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": None, "completion_tokens": None},
        "none",
        {"prompt_tokens": "many", "completion_tokens": -1},
        {"prompt_tokens": float("nan"), "completion_tokens": float("inf")},
    ],
)
def test_a_server_that_does_not_count_tokens_is_booked_at_the_most(usage: Any) -> None:
    _, writer, _ = asked_once(chat("good", usage=usage))
    assert writer.usage.completion_tokens == 6


@pytest.mark.parametrize("reason", ["stop", "eos", "eos_token", "end_turn", "stop_sequence"])
def test_servers_say_in_their_own_words_that_a_text_has_ended(reason: str) -> None:
    assert asked_once(chat("good", reason))[0].finished


def test_a_text_without_a_reason_has_not_ended() -> None:
    assert not asked_once(chat("good", None))[0].finished


# Refusals: one sentence, asked once.


def error(message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


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
        (404, PAGE, "has no chat for the model 'letters'"),
        (429, QUOTA, "quota is spent.*pay for more"),
        (429, error("No quota", type="insufficient_quota"), "quota is spent"),
        (402, error("Insufficient credits"), "quota is spent"),
        (200, QUOTA, "quota is spent"),
        (200, error("No such model", code=404), "has no chat for the model 'letters'"),
        (200, error("context length exceeded", code=400), "refuses the request"),
        (200, PAGE, "a web page instead of JSON.*proxy"),
        (403, PAGE, r"wants a key|refuses this key"),
        (413, error("payload too large"), "refuses the request"),
        (200, "data: {}\n\ndata: [DONE]", r"a stream instead of one answer"),
    ],
)
def test_what_waiting_does_not_mend_is_asked_once(status: int, reply: Any, message: str) -> None:
    with serving(FaultyServer(always=(status, reply))) as server:
        with pytest.raises(UserError, match=message) as caught:
            guide(server, style="chat", extra_body={"chat_template_kwargs": {}}).write(requests(1))
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
        (200, error("overloaded", code=529), "an error: overloaded"),
        (200, {"choices": [], "error": None}, "without choices"),
        (200, [1], "without choices"),
        (200, chat(None, None), "without text"),
        (200, {"choices": [{"finish_reason": "stop", "message": {"role": "assistant"}}]}, "without text"),
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
            guide(server, style="chat", patience=0.6).write(requests(1))
        assert sum(server.seen.values()) > 1
    assert "<html" not in str(caught.value)


def test_an_empty_prompt_is_sent_and_its_refusal_says_what_to_do() -> None:
    with serving(FaultyServer()) as server:
        guide(server).write([Request("", 4, 0)])
        assert server.bodies[0]["prompt"] == ""
    with (
        serving(FaultyServer(always=(400, error("prompt must not be empty")))) as server,
        pytest.raises(UserError, match=r"refuses an empty prompt.*'guide.style: chat'"),
    ):
        guide(server).write([Request("", 4, 0)])


# Parameters.


def test_parameters_come_from_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_GATEWAY", "secret-3")
    with serving(FaultyServer()) as server:
        writer = guide(
            server,
            style="chat",
            system="You review films.",
            temperature=None,
            top_p=None,
            send_seed=False,
            length_parameter="max_completion_tokens",
            stop=("\n\n",),
            extra_body={"chat_template_kwargs": {"enable_thinking": False}},
            headers={"X-Title": "rlgf", "X-Gateway-Key": "$MY_GATEWAY"},
        )
        writer.write(requests(1))
        (body,), (headers,) = server.bodies, server.headers
    assert body.pop("messages")[0] == {"role": "system", "content": "You review films."}
    assert body == {
        "model": "letters",
        "max_completion_tokens": 6,
        "stop": ["\n\n"],
        "chat_template_kwargs": {"enable_thinking": False},
    }
    sent = {name.lower(): value for name, value in headers.items()}
    assert (sent["x-title"], sent["x-gateway-key"]) == ("rlgf", "secret-3")
    assert "secret-3" not in repr(writer.config)


def test_the_secret_of_a_header_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_GATEWAY", "secret-3")
    with (
        serving(FaultyServer(always=(400, error("bad key secret-3")))) as server,
        pytest.raises(UserError, match=r"\*\*\*") as caught,
    ):
        guide(server, headers={"X-Gateway-Key": "$MY_GATEWAY"}).write(requests(1))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("guide.headers={X-Title: Bearer abc}", r"'guide.headers'.*looks like a secret"),
        ("guide.headers={X Title: abc}", "not a name of a header"),
        ("guide.extra_body={api_key: abc}", r"'guide.extra_body'.*'key_variable'"),
        ("guide.headers={X-Api-Key: abc}", r"'guide.headers'.*looks like a secret.*\$THE_VARIABLE"),
        (
            "guide.extra_body={temperature: 1}",
            r"'guide.extra_body'.*must not hold 'temperature'.*guide.temperature",
        ),
        ("guide.extra_body={stream: true}", r"'guide.extra_body'.*answers are read whole"),
        ("guide.system=Hello", "'system' belongs to 'style: chat'"),
        ("guide.length_parameter=max_length", "'max_tokens' or 'max_completion_tokens'"),
    ],
)
def test_parameters_that_cannot_work_are_one_sentence(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(RECIPE, override)


def test_a_header_whose_variable_is_not_set_is_one_sentence() -> None:
    with pytest.raises(
        UserError, match=r"'guide.headers.X-Key': the environment variable NO_SUCH is not set"
    ):
        HTTPGuide(
            HTTPGuideConfig(url="http://127.0.0.1:1/v1", model="m", headers={"X-Key": "$NO_SUCH"}, cache=None)
        )


# Cache and prefetch.


def test_answers_paid_for_before_there_were_these_parameters_are_still_found() -> None:
    config = HTTPGuideConfig(url="http://h/v1", model="m")
    assert config.identity == {
        "model": "m",
        "style": "completions",
        "temperature": 1.0,
        "top_p": 0.92,
        "token_ratio": 1.5,
    }


def test_another_revision_is_asked_anew(tmp_path: Path) -> None:
    with serving(FaultyServer()) as server:
        for revision in (None, "2026-11", "2026-11"):
            guide(server, cache=str(tmp_path), revision=revision).write(requests(1))
        assert sum(server.seen.values()) == 2


@pytest.mark.parametrize(
    "field",
    [{"root": "two"}, {"created": 1_700_000_000}, {"owned_by": "somebody else"}, {"meta": {"n_params": 2}}],
)
def test_another_model_behind_the_same_name_is_asked_anew(tmp_path: Path, field: dict[str, Any]) -> None:
    """And the first one's answers are found again once it is back; with the server off, the last one's."""

    def write(server: FaultyServer) -> str:
        return guide(server, cache=str(tmp_path / "cache"), patience=1.0).write(requests(1))[0].text

    server = FaultyServer(listed={"created": int(time.time()), "root": "one"})
    with serving(server):
        first = write(server)
        server.letters, server.listed = "xyz", {"root": "one"} | field
        second = write(server)
        assert second != first
        server.letters, server.listed = "abcd", {"root": "one"}
        assert write(server) == first, "the time of asking is no model's"
        server.listed = {"root": "one"} | field
        assert write(server) == second
        assert sum(server.seen.values()) == 2
    assert write(server) == second


def test_a_server_without_a_list_of_models_is_known_by_its_name(tmp_path: Path) -> None:
    asked = []
    for listed in (404, {}, 500):
        with serving(FaultyServer(listed=listed)) as server:
            guide(server, cache=str(tmp_path)).write(requests(1))
            asked.append(sum(server.seen.values()))
    assert asked == [1, 0, 0]


def test_an_export_holds_one_guide(tmp_path: Path) -> None:
    with serving(FaultyServer()) as server, serving(FaultyServer(model="other")) as two:
        cache = str(tmp_path / "cache")
        guide(server, cache=cache).write(requests(3))
        guide(server, cache=cache, temperature=0.5).write(requests(2))
        guide(two, cache=cache, model="other").write(requests(1))
    kept, file = GuideCache(cache), tmp_path / "export.jsonl"
    names = sorted(kept.summary())
    assert names == ["letters temperature=0.5", "letters temperature=1.0", "other"]
    with pytest.raises(UserError, match=r"several guides.*--model.*letters temperature=0.5.*other"):
        kept.export(file)
    with pytest.raises(UserError, match="no answers of 'letter'"):
        kept.export(file, "letter")
    with pytest.raises(UserError, match=r"several guides.*temperature=1.0'\.$"):
        kept.export(file, "letters")
    assert kept.export(file, "letters temperature=1.0") == 3
    answer = ReplayGuide(ReplayGuideConfig(file=file)).write(requests(1))[0]
    assert answer.text == answer_to("text 0 ", 0, "abcd", 6)
    both = file.read_text()
    kept.export(file, "other")
    file.write_text(both + file.read_text())
    with pytest.raises(UserError, match=r"mixes the answers of several guides \(letters, other\)"):
        ReplayGuide(ReplayGuideConfig(file=file))


def test_ten_thousand_requests_are_prefetched_at_once(tmp_path: Path) -> None:
    """Whether they are in the cache or not, and with a budget that has to be watched."""
    asked = [Request(f"text {i} " * 20, 4, seed=i) for i in range(10_000)]
    with serving(FaultyServer(latency=0.2)) as server:
        for settings in ({"cache": str(tmp_path)}, {"budget": {"calls": 20_000, "tokens": 10**9}}):
            writer = guide(server, **settings)
            started = time.thread_time()  # that of training; a busy machine may take longer
            writer.prefetch(asked)
            assert time.thread_time() - started < 2
            started = time.perf_counter()
            writer.close()
            assert time.perf_counter() - started < 5, "only what is under way is waited for"


def test_what_is_in_the_cache_does_not_count_against_a_budget(tmp_path: Path) -> None:
    with serving(FaultyServer()) as server:
        guide(server, cache=str(tmp_path)).write(requests(9))
        poor = guide(server, cache=str(tmp_path), budget={"calls": 3})
        poor.prefetch(requests(9))
        asked = requests(9) + requests(3, start=9)
        assert len(poor.write(asked)) == 12
        assert (poor.usage.calls, poor.usage.cached) == (3, 9)


# What stands in the way.


def test_headers_may_hold_a_variable_among_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_GATEWAY", "secret-3\n")
    with serving(FaultyServer(key="secret-3")) as server:
        guide(server, headers={"Authorization": "Bearer $MY_GATEWAY"}).write(requests(1))
        assert sum(server.answered.values()) == 1


@pytest.mark.parametrize("key", ["secret\nkey", "secret-é"])
def test_a_key_that_no_header_can_hold_is_one_sentence(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UserError, match="environment variable OPENAI_API_KEY holds characters") as caught:
        HTTPGuide(HTTPGuideConfig(url="http://127.0.0.1:1/v1", model="m", cache=None))
    assert "secret" not in str(caught.value)


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


@pytest.mark.parametrize("asked", ["0", "-5", "nan", "Sat, 01 Jan 2000 00:00:00 GMT", "Fri, 99 Foo 99999"])
def test_a_moment_to_come_back_that_has_passed_is_no_reason_to_hurry(asked: str) -> None:
    response = httpx2.Response(
        429, headers={"retry-after": asked}, request=httpx2.Request("POST", "http://x")
    )
    state = RetryCallState(Retrying(), None, (), {})
    error = openai.RateLimitError("slow down", response=response, body=None)
    state.set_exception((type(error), error, None))
    assert 0 < _wait(state) <= 20


def test_closing_lets_come_what_is_paid_for(tmp_path: Path) -> None:
    with serving(FaultyServer(latency=0.3)) as server:
        writer = guide(server, cache=str(tmp_path), timeout=60.0, concurrency=2)
        writer.prefetch(requests(100))
        time.sleep(0.1)
        started = time.perf_counter()
        writer.close()
        assert time.perf_counter() - started < 5
        assert len(list(GuideCache(str(tmp_path)).entries())) == sum(server.answered.values()) >= 1
