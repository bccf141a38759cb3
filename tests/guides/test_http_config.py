"""What a recipe says of a guide behind HTTP, and what of it reaches the server."""

from __future__ import annotations

import pytest
from http_toys import RECIPE, requests
from reply_toys import guide_of

from faulty_server import FaultyServer, serving
from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.guides import HTTPGuide, HTTPGuideConfig, LocalGuideConfig, Request


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("guide.url=localhost", r"'guide.url' .*an address such as"),
        ("guide.url=http://me:secret@host/v1", "environment variable"),
        ("guide.url=https://host/v1?key=secret", "environment variable"),
        ("guide.url=http://me:secret@host/v1/completions", "environment variable"),
        ("guide.url=http://host/v1#top", "an address such as"),
        ("guide.url='http://my host/v1'", "an address such as"),
        ("guide.url=http://host:port/v1", "'guide.url'.*Port could not be cast"),
        ("guide.url=http://host/v1/chat/completions", "leave out '/chat/completions'"),
        ("guide.url=http://host/v1/completions", "leave out '/completions'"),
        ("guide.template=Go on.", r"needs a place for the text: write \{text\}"),
        ("guide.prices.prompt=-1", "'guide.prices.prompt'.*at least 0"),
        ("guide.budget.cost=3", "needs 'prices'"),
        ("guide.continue_message=true", "belongs to 'style: chat'"),
        ("guide.tempereture=1", "'guide.tempereture' is not a known key: did you mean 'temperature'"),
        ("guide.budget={calls: 3, then: unguided}", "does not fit algorithm 'aggrevated'"),
    ],
)
def test_a_recipe_that_cannot_work_is_one_sentence(override: str, message: str) -> None:
    recipe = RECIPE | {"algorithm": "aggrevated"}
    with pytest.raises(UserError, match=message) as caught:
        load_config(recipe, override)
    assert "secret" not in str(caught.value)


def test_a_resumed_run_may_change_how_its_guide_is_reached() -> None:
    config = load_config(RECIPE)
    moved = load_config(RECIPE, "guide.url=http://127.0.0.2:1/v1", "guide.budget.calls=3")
    assert config.identity == moved.identity
    assert config.identity != load_config(RECIPE, "guide.top_p=0.5").identity


@pytest.mark.parametrize(
    "order",
    [("guide.model=letters", "guide.url=http://h/v1"), ("guide.url=http://h/v1", "guide.model=letters")],
)
def test_a_later_recipe_may_change_the_kind_of_guide(order: tuple[str, str]) -> None:
    local = {"model": "folder", "sampling": {"top_p": 0.5}}
    recipe = RECIPE | {"guide": local}
    assert isinstance(load_config(recipe).guide, LocalGuideConfig)
    config = load_config(recipe, *order).guide
    assert isinstance(config, HTTPGuideConfig)
    assert (config.model, config.top_p) == ("letters", 0.92)
    with pytest.raises(UserError, match=r"'guide\.sampling' does not go with the other keys of 'guide'"):
        load_config(recipe, *order, "guide.sampling.top_p=0.5")


def test_parameters_come_from_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_GATEWAY", "secret-3")
    with serving(FaultyServer()) as server:
        writer = guide_of(
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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("guide.headers={X-Title: Bearer abc}", r"'guide.headers'.*looks like a secret"),
        ("guide.headers={X Title: abc}", "not a name of a header"),
        ("guide.extra_body={api_key: abc}", r"'guide.extra_body'.*'key_variable'"),
        ("guide.extra_body={provider: [{api_key: abc}]}", r"must not hold 'api_key'.*'key_variable'"),
        ("guide.extra_body={provider: {auth: sk-123}}", r"must not hold 'auth'.*'key_variable'"),
        (
            "guide.extra_body={continue_final_message: true}",
            "'extra_body.continue_final_message' belongs to 'continue_message: true'",
        ),
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


def test_a_message_is_gone_on_with_where_it_has_a_beginning() -> None:
    body = {"continue_final_message": True, "add_generation_prompt": False, "top_k": 4}
    with serving(FaultyServer()) as server:
        writer = guide_of(server, style="chat", continue_message=True, extra_body=body, concurrency=1)
        writer.write([Request("It was", 4, 0), Request("It was", 4, 0, prompt_length=3)])
        sent = [{name: one[name] for name in body if name in one} for one in server.bodies]
    assert sent == [{"top_k": 4}, body]


def test_without_a_key_none_is_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_GATEWAY", "secret-3")
    with serving(FaultyServer()) as server:
        guide_of(server, headers={"api-key": "$MY_GATEWAY"}).write(requests(1))
        (sent,) = ({name.lower(): value for name, value in one.items()} for one in server.headers)
    assert sent["api-key"] == "secret-3"
    assert "authorization" not in sent


def test_a_header_whose_variable_is_not_set_is_one_sentence() -> None:
    with pytest.raises(
        UserError, match=r"'guide.headers.X-Key': the environment variable NO_SUCH is not set"
    ):
        HTTPGuide(
            HTTPGuideConfig(url="http://127.0.0.1:1/v1", model="m", headers={"X-Key": "$NO_SUCH"}, cache=None)
        )


def test_answers_paid_for_before_there_were_these_parameters_are_still_found() -> None:
    config = HTTPGuideConfig(url="http://h/v1", model="m")
    assert config.identity == {
        "model": "m",
        "style": "completions",
        "temperature": 1.0,
        "top_p": 0.92,
        "token_ratio": 1.5,
    }


def test_headers_may_hold_a_variable_among_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_GATEWAY", "secret-3\n")
    with serving(FaultyServer(key="secret-3")) as server:
        guide_of(server, headers={"Authorization": "Bearer $MY_GATEWAY"}).write(requests(1))
        assert sum(server.answered.values()) == 1


def test_a_version_in_the_address_goes_with_each_request() -> None:
    with serving(FaultyServer()) as server:
        config = HTTPGuideConfig(url=f" {server.url}/?api-version=2024-10-21\n", model="no", cache=None)
        with pytest.raises(UserError, match=r"no model no at /v1/completions\?api-version=2024-10-21"):
            HTTPGuide(config).write(requests(1))


@pytest.mark.parametrize("key", ["secret\nkey", "secret-é"])
def test_a_key_that_no_header_can_hold_is_one_sentence(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UserError, match="environment variable OPENAI_API_KEY holds characters") as caught:
        HTTPGuide(HTTPGuideConfig(url="http://127.0.0.1:1/v1", model="m", cache=None))
    assert "secret" not in str(caught.value)
