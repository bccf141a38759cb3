"""The settings of a guide behind an OpenAI-compatible HTTP server."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from rlgf.errors import UserError
from rlgf.guides.answer_cache import DEFAULT_CACHE
from rlgf.guides.base import Guide, GuideSettings
from rlgf.identity import FREE, identity
from rlgf.models.language_model import LanguageModel
from rlgf.models.samplers.wire import check_sendable
from rlgf.registry import resolve
from rlgf.strict import Strict

CONTINUE = (
    "Continue the following text exactly where it stops, in the same voice. Answer with the "
    "continuation alone, without repeating any of the text.\n\n{text}"
)
_SECRET = re.compile(r"authorization|cookie|secret|password|token|key$", flags=re.IGNORECASE)
"""Headers with such names hold secrets."""
_SECRET_FIELD = re.compile(r"authorization|secret|password|api_?key|access_?token", flags=re.IGNORECASE)
"""And such fields of a request, some of which are about tokens of a text."""
_SECRET_VALUE = re.compile(r"(bearer|basic) |sk-", flags=re.IGNORECASE)
_CONTINUES = frozenset({"continue_final_message", "add_generation_prompt"})
"""What tells vLLM to go on with the last message, which must then be the assistant's."""
_VARIABLE = re.compile(r"\$(\w+)")


def _secret_fields(body: Any) -> Iterator[str]:
    """The names of fields that hold secrets, however deep they stand."""
    for name, value in body.items() if isinstance(body, Mapping) else enumerate(body):
        if _SECRET_FIELD.search(str(name)) or (isinstance(value, str) and _SECRET_VALUE.match(value)):
            yield str(name)
        elif isinstance(value, Mapping | list):
            yield from _secret_fields(value)


class Prices(Strict):
    """In any currency, for a million tokens."""

    prompt: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    completion: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class BudgetConfig(Strict):
    """What a run may ask for at most. A limit that is not set is none."""

    calls: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(default=None, ge=1)
    """Those of prompts and completions together."""
    cost: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """In the currency of the prices."""
    then: Literal["stop", "unguided"] = "stop"
    """At the limit: stop with a checkpoint, or train on without the guide."""

    @property
    def limited(self) -> bool:
        return any(limit is not None for limit in (self.calls, self.tokens, self.cost))


class HTTPGuideConfig(GuideSettings):
    """A model on an OpenAI-compatible server, such as OpenAI, vLLM, llama.cpp, Ollama or TGI."""

    mark: ClassVar[str] = "url"

    url: Annotated[str, FREE]
    """Up to and with the version: http://127.0.0.1:8080/v1; on Azure with its ``?api-version=``, where it asks for one."""
    model: str
    revision: str | None = None
    """A name of yours for the weights behind `model`: with another one, answers are asked for anew."""
    style: Literal["completions", "chat"] = "completions"
    """``completions`` sends the text so far as the prompt, ``chat`` sends an instruction."""
    template: str = CONTINUE
    """The user's message in chat style; ``{text}`` stands for the text so far."""
    system: str | None = None
    """The system message in chat style; null sends none."""
    continue_message: bool = False
    """In chat style: send the written part of the response as the beginning of the assistant's message,
    which the server continues (llama.cpp, Claude), and the prompt alone as ``{text}``."""
    temperature: float | None = Field(default=1.0, ge=0, le=2)
    """Null leaves it out of the request, for models that refuse it."""
    top_p: float | None = Field(default=0.92, gt=0, le=1)
    """Null leaves it out of the request."""
    send_seed: bool = True
    """False leaves the seed out of the request."""
    length_parameter: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The server's name for the limit of an answer; OpenAI's newer models want the second."""
    stop: tuple[str, ...] = Field(default=(), max_length=4)
    """Texts at which the guide ends its own."""
    end_token: str | None = Field(default=None, min_length=1)
    """How the guide's tokenizer writes the token that ends a text, such as ``<|im_end|>``: what is learned from its scores
    then includes when to end."""
    extra_body: dict[str, Any] = {}
    """Further fields of the request, such as ``chat_template_kwargs: {enable_thinking: false}`` (vLLM)."""
    headers: Annotated[dict[str, str], FREE] = {}
    """Further headers. ``$NAME`` in a value is read from the environment variable NAME, and is written nowhere."""
    key_variable: Annotated[str, FREE] = "OPENAI_API_KEY"
    """The environment variable that holds the key; servers without keys need none."""
    token_ratio: float = Field(default=1.5, ge=1)
    """Tokens asked for per token of the policy: tokens of another vocabulary hold more or less text."""
    concurrency: Annotated[int, FREE] = Field(default=8, ge=1)
    """Requests under way at a time."""
    timeout: Annotated[float, FREE] = Field(default=60.0, gt=0)
    """Seconds without a byte after which an attempt is given up; one that goes on sending, after `patience`."""
    patience: Annotated[float, FREE] = Field(default=300.0, gt=0)
    """Seconds that a request is tried again, and nobody is answered, before the run stops with a checkpoint."""
    prices: Annotated[Prices, FREE] = Prices()
    budget: Annotated[BudgetConfig, FREE] = BudgetConfig()
    cache: Annotated[str | None, FREE] = DEFAULT_CACHE
    """Folder of the answers, or null for none; the default is in the library's cache folder."""

    @field_validator("url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        url = url.strip()
        parts = urlsplit(url)
        plain = url.isprintable() and " " not in url and not parts.fragment
        if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
            raise ValueError("it must be an address such as http://127.0.0.1:8080/v1")
        _ = parts.port  # raises a ValueError where it is none
        return url.rstrip("/")

    @field_validator("headers")
    @classmethod
    def _no_secrets(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII):
                raise ValueError(f"'{name}' is not a name of a header: letters, digits and hyphens make one")
            secret = _SECRET.search(name) or _SECRET_VALUE.match(value)
            if secret and not _VARIABLE.search(value):
                raise ValueError(
                    f"the header '{name}' looks like a secret: put it into an environment variable, and "
                    f"write '{name}: $THE_VARIABLE'"
                )
        return headers

    @field_validator("extra_body")
    @classmethod
    def _fields_of_their_own(cls, body: dict[str, Any]) -> dict[str, Any]:
        taken = {"model": "guide.model", "prompt": "the task", "messages": "guide.template"}
        taken |= {name: f"guide.{name}" for name in ("temperature", "top_p", "stop")}
        taken |= {"seed": "guide.send_seed", "n": "one answer at a time"}
        taken |= dict.fromkeys(("echo", "logprobs"), "what the algorithm reads")
        taken |= dict.fromkeys(("max_tokens", "max_completion_tokens"), "guide.length_parameter")
        for name in body.keys() & taken.keys():
            raise ValueError(f"it must not hold '{name}', which comes from {taken[name]}")
        for name in _secret_fields(body):
            raise ValueError(
                f"it must not hold '{name}': a key belongs in the environment variable that 'key_variable' names"
            )
        if body.get("stream"):
            raise ValueError("it must not hold 'stream: true': answers are read whole")
        return body

    @model_validator(mode="after")
    def _coherent(self) -> HTTPGuideConfig:
        # Not where the address is read: what is wrong there is shown.
        parts = urlsplit(self.url)
        if parts.username or parts.password or not re.fullmatch(r"(api-version=[\w.-]+)?", parts.query):
            raise ValueError(
                "a key belongs in the environment variable that 'key_variable' names, never in a recipe: 'url' may hold "
                "no name, no password and no query but '?api-version=...'"
            )
        if route := re.search(r"(/chat)?/completions/*$", parts.path):
            raise ValueError(f"'url' must end in the API's version: leave out '{route[0]}'")
        if "{text}" not in self.template:
            raise ValueError("'template' needs a place for the text: write {text} in it")
        if self.budget.cost is not None and not (self.prices.prompt or self.prices.completion):
            raise ValueError("'budget.cost' needs 'prices', in units of currency for a million tokens")
        for name in _CONTINUES & self.extra_body.keys() if not self.continue_message else ():
            raise ValueError(f"'extra_body.{name}' belongs to 'continue_message: true'")
        for name in ("continue_message", "system"):
            if getattr(self, name) and self.style == "completions":
                raise ValueError(f"'{name}' belongs to 'style: chat'")
        return self

    _ADDED: ClassVar = (
        "revision",
        "system",
        "send_seed",
        "length_parameter",
        "stop",
        "extra_body",
        "end_token",
    )

    def build(self, start: LanguageModel | None) -> Guide:
        # By its name, since it imports this file.
        guide: Guide = resolve("rlgf.guides.http:HTTPGuide", {}, "guide")(self)
        return guide

    @property
    def label(self) -> str:
        return self.model

    @property
    def may_score_texts(self) -> bool:
        # A chat server has no place for an answer that is given.
        return self.style != "chat"

    @property
    def identity(self) -> dict[str, Any]:
        """All that answers depend on besides the request. The address is no part of it: elsewhere the guide is the same."""
        unread = {"candidates"} | (set() if self.style == "chat" else {"template", "continue_message"})
        # Answers that were paid for before there were these fields are still found.
        unread |= {
            name for name in self._ADDED if getattr(self, name) == type(self).model_fields[name].default
        }
        return {name: value for name, value in identity(self).items() if name not in unread}

    def parameters(self, length: int, seed: int, *, continues: bool = True) -> dict[str, Any]:
        """The fields of a request besides its text.

        Args:
            length: the limit of the answer, in tokens of the guide.
            continues: whether the answer has a beginning, with which the server goes on.
        """
        body = {name: value for name, value in self.extra_body.items() if continues or name not in _CONTINUES}
        found: dict[str, Any] = {"model": self.model, self.length_parameter: length}
        found |= {
            name: value
            for name, value in (("temperature", self.temperature), ("top_p", self.top_p))
            if value is not None
        }
        if self.send_seed:
            found["seed"] = seed % 2**31
        if self.stop:
            found["stop"] = list(self.stop)
        return found | ({"extra_body": body} if body else {})

    def scoring_parameters(self) -> dict[str, Any]:
        """The fields of a request that asks how probable its text is: the text comes back with log-probabilities.

        One token is written after it, since some servers refuse to write none. On some servers the temperature counts.
        """
        found: dict[str, Any] = {"model": self.model, self.length_parameter: 1, "echo": True, "logprobs": 1}
        found |= {name: 1.0 for name in ("temperature", "top_p") if getattr(self, name) is not None}
        return found | ({"extra_body": self.extra_body} if self.extra_body else {})

    def resolved_headers(self) -> dict[str, str]:
        """The headers with the values of environment variables.

        Raises:
            UserError: a variable is not set.
        """
        found = {}
        for name, value in self.headers.items():
            for variable in _VARIABLE.findall(value):
                if variable not in os.environ:
                    raise UserError(
                        f"'guide.headers.{name}': the environment variable {variable} is not set."
                    )
            found[name] = _VARIABLE.sub(lambda match: os.environ[match[1]].strip(), value)
            check_sendable(found[name], f"'guide.headers.{name}': its value")
        return found

    @property
    def key(self) -> str | None:
        """The key, where the environment holds one.

        Raises:
            UserError: no header can hold it.
        """
        found = os.environ.get(self.key_variable, "").strip()
        check_sendable(
            found, f"'guide.key_variable': the key in the environment variable {self.key_variable}"
        )
        return found or None

    @property
    def secrets(self) -> list[str]:
        """Values from the environment that must be shown nowhere."""
        variables = [name for value in self.headers.values() for name in _VARIABLE.findall(value)]
        found = [os.environ.get(name, "").strip() for name in (self.key_variable, *variables)]
        return sorted(filter(None, found), key=len, reverse=True)
