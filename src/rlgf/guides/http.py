"""A guide behind an OpenAI-compatible HTTP server."""

from __future__ import annotations

import email.utils
import math
import os
import threading
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import openai
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from rlgf.errors import UserError, nearest
from rlgf.guides.base import Request
from rlgf.guides.cache import DEFAULT_CACHE
from rlgf.identity import FREE, identity

CONTINUE = (
    "Continue the following text exactly where it stops, in the same voice. Answer with the "
    "continuation alone, without repeating any of the text.\n\n{text}"
)
_ECHO = 15
"""Characters of the prefix that an answer must begin with to count as an echo of it."""


class Prices(BaseModel):
    """In any currency, for a million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    completion: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class BudgetConfig(BaseModel):
    """What a run may ask for at most. A limit that is not set is none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calls: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(default=None, ge=1)
    """Of prompts and completions together."""
    cost: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """In the currency of the prices."""
    then: Literal["stop", "unguided"] = "stop"
    """At the limit: stop with a checkpoint, or train on without the guide."""


class HTTPGuideConfig(BaseModel):
    """A model on an OpenAI-compatible server, such as OpenAI, vLLM, llama.cpp, Ollama or TGI."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, FREE]
    """Up to and with the version: http://127.0.0.1:8080/v1."""
    model: str
    style: Literal["completions", "chat"] = "completions"
    """``completions`` sends the text so far as the prompt, ``chat`` sends an instruction."""
    template: str = CONTINUE
    """The user's message in chat style; ``{text}`` stands for the text so far."""
    continue_message: bool = False
    """In chat style: send what is written of the response as the beginning of the assistant's message,
    which the server continues (vLLM, llama.cpp), and the prompt alone as ``{text}``."""
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=0.92, gt=0, le=1)
    key_variable: Annotated[str, FREE] = "OPENAI_API_KEY"
    """The environment variable that holds the key; servers without keys need none."""
    token_ratio: float = Field(default=1.5, ge=1)
    """Tokens asked for per token of the policy: tokens of another vocabulary hold more or less text."""
    concurrency: Annotated[int, FREE] = Field(default=8, ge=1)
    """Requests under way at a time."""
    timeout: Annotated[float, FREE] = Field(default=60.0, gt=0)
    """Seconds that one attempt may take."""
    patience: Annotated[float, FREE] = Field(default=300.0, gt=0)
    """Seconds that one request is tried again before the run stops with a checkpoint."""
    prices: Annotated[Prices, FREE] = Prices()
    budget: Annotated[BudgetConfig, FREE] = BudgetConfig()
    cache: Annotated[str | None, FREE] = DEFAULT_CACHE
    """Folder of the answers, or null for none; the default is in the library's cache folder."""

    @field_validator("url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it must be an address such as http://127.0.0.1:8080/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError(
                "a key belongs in the environment variable that 'key_variable' names, never in a recipe"
            )
        return url.rstrip("/")

    @model_validator(mode="after")
    def _coherent(self) -> HTTPGuideConfig:
        if "{text}" not in self.template:
            raise ValueError("'template' needs a place for the text: write {text} in it")
        if self.budget.cost is not None and not (self.prices.prompt or self.prices.completion):
            raise ValueError("'budget.cost' needs 'prices', in units of currency for a million tokens")
        if self.continue_message and self.style == "completions":
            raise ValueError("'continue_message' belongs to 'style: chat'")
        return self

    @property
    def identity(self) -> dict[str, Any]:
        """What answers depend on, besides the request: the same guide at another address is the same."""
        unread = set() if self.style == "chat" else {"template", "continue_message"}
        return {name: value for name, value in identity(self).items() if name not in unread}


@dataclass(frozen=True)
class Answer:
    """What a server said, and what it charges."""

    text: str
    finished: bool
    refused: bool
    prompt_tokens: int
    completion_tokens: int
    retries: int


class UnusableAnswerError(Exception):
    """A reply without a completion in it; asked for again."""


_TRANSIENT = (
    openai.APIConnectionError,  # time-outs too
    openai.RateLimitError,
    openai.InternalServerError,
    openai.ConflictError,
    openai.APIResponseValidationError,
    UnusableAnswerError,
)


class Endpoint:
    """Asks a server for one completion at a time, again and again while it fails. Safe for threads."""

    def __init__(self, config: HTTPGuideConfig) -> None:
        self.config = config
        self._closed = threading.Event()
        self._key = os.environ.get(config.key_variable)
        self._client = openai.OpenAI(
            base_url=config.url,
            api_key=self._key or "none",
            timeout=config.timeout,
            max_retries=0,  # retried here, where an answer without a completion is retried too
        )

    def ask(self, request: Request) -> Answer:
        """The server's continuation.

        Raises:
            UserError: the server refuses the key, the model or the request, or did not answer
                within the configured patience.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(_TRANSIENT),
            stop=stop_after_delay(self.config.patience) | stop_when_event_set(self._closed),
            wait=lambda state: min(_wait(state), self._patience_left(state)),
            sleep=sleep_using_event(self._closed),
            reraise=True,
        )
        try:
            for attempt in retrying:
                with attempt:
                    text, reason, refused, usage = self._attempt(request)
        except _TRANSIENT as error:
            raise UserError(
                f"'guide.url' {self.config.url}: no usable answer within {self.config.patience:.0f} s "
                f"('guide.patience'); the last attempt ended with: {self._said(error)}. Start the server or "
                "mend the address, then --resume."
            ) from None
        except openai.APIStatusError as error:
            raise UserError(self._refusal(error)) from None
        return Answer(
            text=self._without_echo(request, text),
            finished=reason == "stop",
            refused=refused,
            prompt_tokens=usage.prompt_tokens if usage else 0,
            completion_tokens=usage.completion_tokens if usage else 0,
            retries=retrying.statistics["attempt_number"] - 1,
        )

    def close(self) -> None:
        """Give up on whatever is being asked."""
        self._closed.set()
        self._client.close()

    def _patience_left(self, state: RetryCallState) -> float:
        return max(self.config.patience - (state.seconds_since_start or 0.0), 0.0)

    def _attempt(self, request: Request) -> tuple[str, str | None, bool, Any]:
        config = self.config
        settings: dict[str, Any] = {
            "model": config.model,
            "max_tokens": math.ceil(request.max_new_tokens * config.token_ratio),
            "temperature": config.temperature,
            "top_p": config.top_p,
            "seed": request.seed % 2**31,
        }
        try:
            if config.style == "completions":
                reply = self._client.completions.create(prompt=request.prefix, **settings)
            else:
                reply = self._client.chat.completions.create(messages=self._messages(request), **settings)  # type: ignore[arg-type]  # plain mappings
        except ValueError as error:  # half a JSON document
            raise UnusableAnswerError(f"a reply that is no JSON ({error})") from error
        choices = getattr(reply, "choices", None)
        if not choices:
            raise UnusableAnswerError("a reply without choices")
        choice: Any = choices[0]
        refused = choice.finish_reason == "content_filter"
        if config.style == "completions":
            text = choice.text
        else:
            message = choice.message
            refused = refused or bool(getattr(message, "refusal", None))
            text = message.content if message is not None else None
        if text is None and not refused:
            raise UnusableAnswerError("a choice without text")
        return "" if refused else str(text), choice.finish_reason, refused, reply.usage

    def _messages(self, request: Request) -> list[dict[str, str]]:
        asked = request.prompt if self.config.continue_message else request.prefix
        messages = [{"role": "user", "content": self.config.template.replace("{text}", asked)}]
        if self.config.continue_message and request.written:
            messages.append({"role": "assistant", "content": request.written})
        return messages

    def _without_echo(self, request: Request, text: str) -> str:
        """The answer without a repeated end of the prefix, and parted from it by a space if a word would merge.

        A chat model cannot say whether its answer begins a new word, so in chat style two word
        characters that meet are taken for two words.
        """
        if self.config.style == "completions":
            return text
        prefix = request.prefix
        stripped = text.lstrip()
        for start in range(max(len(prefix) - _ECHO + 1, 1)):
            echoed = prefix[start:].strip()
            if echoed and stripped.startswith(echoed):
                text = stripped[len(echoed) :]
                break
        if prefix[-1:].isalnum() and text[:1].isalnum():
            return " " + text
        return text

    def _refusal(self, error: openai.APIStatusError) -> str:
        config = self.config
        where = f"'guide.url' {config.url}"
        if error.status_code in (401, 403):
            what = "is set, and was refused" if self._key else "is not set"
            return f"{where}: the server wants a key; the environment variable {config.key_variable} {what}."
        if error.status_code == 404:
            return f"{where} has no {config.style} for the model '{config.model}' ({self._said(error)}): {self._models()}"
        return f"{where}: the server refuses the request ({self._said(error)}); see 'guide.model' and the rollout's lengths."

    def _models(self) -> str:
        try:
            names = [model.id for model in self._client.models.list()]
        except openai.OpenAIError:
            return "check that the address ends in the API's version, such as /v1, or set 'guide.style'."
        return f"set 'guide.model' or 'guide.style'. {nearest(self.config.model, names)}"

    def _said(self, error: Exception) -> str:
        """The reason in one line, without the key, which some servers repeat."""
        cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else None
        said = " ".join(f"{error} {f'({cause})' if cause else ''}".split())[:300].rstrip(".")
        return said.replace(self._key, "***") if self._key else said


_backoff = wait_random_exponential(multiplier=0.5, max=20)


def _wait(state: RetryCallState) -> float:
    """As long as the server asks for (`Retry-After`), else a random time that grows exponentially."""
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, openai.APIStatusError):
        asked = error.response.headers.get("retry-after", "")
        try:
            return max(float(asked), 0.0)
        except ValueError:
            date = email.utils.parsedate_tz(asked)
            if date is not None:
                return max(email.utils.mktime_tz(date) - time.time(), 0.0)
    return float(_backoff(state))
