"""Asks an OpenAI-compatible HTTP server for completions, again and again while it fails."""

from __future__ import annotations

import email.utils
import json
import math
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import openai
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    wait_random_exponential,
)

from rlgf.errors import UserError
from rlgf.guides.base import Request
from rlgf.guides.client import openai_client
from rlgf.guides.failures import (
    ASK_ANOTHER,
    RefusedError,
    causes,
    failure_in,
    filtered,
    parsed,
    passes,
    reason,
    refusal,
    remedy,
    reported,
)
from rlgf.guides.http_config import HTTPGuideConfig
from rlgf.guides.messages import chat_messages, without_echo
from rlgf.guides.reply import Answer, NoScoresError, UnusableAnswerError, read_reply, read_scores, used
from rlgf.terminal import printable

_TELLING = ("id", "root", "parent", "owned_by", "created", "revision", "version", "digest", "sha", "meta")
"""What a list of models may say of the model behind a name; its other fields change from day to day."""
_LISTING_SECONDS = 5.0
"""That a server's list of models may take."""


class Endpoint:
    """Asks a server for one completion, or about one text, at a time, again and again while it fails. Safe for threads."""

    def __init__(self, config: HTTPGuideConfig) -> None:
        """
        Raises:
            UserError: a header's environment variable is not set, a header cannot hold its value, or the environment
                names a proxy or certificates that cannot be used.
        """
        self.config = config
        self._closed = False
        self._halted = threading.Event()
        self._why = ""
        self._lock = threading.Lock()
        self._wasted = (0, 0)
        self._not_before = 0.0
        """When the server wants to be asked again, by the clock of `time.monotonic`."""
        self._answered = 0.0
        """When it last gave an answer, whoever asked."""
        self._warned = False
        self._client = openai_client(config)

    def ask(self, request: Request) -> Answer:
        """The server's continuation, or what it says of the text that is to be scored.

        A request that fails ends all others, see `halt`: each would wait as long for the same server.

        Raises:
            UserError: the server refuses the key, the model or the request, does not say how probable a text is, or
                did not answer within the configured patience.
        """
        retrying = Retrying(
            retry=retry_if_exception(passes),
            stop=lambda state: self._patience_left(state) <= 0,
            wait=self._wait,
            sleep=sleep_using_event(self._halted),
            reraise=True,
        )
        try:
            for attempt in retrying:
                with attempt:
                    self._wait_for_turn(attempt.retry_state)
                    answer = self._attempt(request)
                    self._answered = time.monotonic()
        except (openai.OpenAIError, UnusableAnswerError, RefusedError, NoScoresError) as error:
            if not self._halted.is_set():
                self.halt(printable(self._said(error, request)))
            raise UserError(self._why) from None
        retries = retrying.statistics["attempt_number"] - 1
        text = answer.text if request.scored is not None else without_echo(self.config, request, answer.text)
        return replace(answer, text=text, retries=retries)

    def describe(self) -> dict[str, Any] | None:
        """What the server says of the model behind its name, in its list of models; None where it does not answer."""
        client = self._client.with_options(timeout=min(self.config.timeout, _LISTING_SECONDS))
        try:
            raw = client.models.with_raw_response.list()
            listed = json.loads(raw.text)
        except openai.OpenAIError:
            return None
        except (ValueError, RecursionError):
            return {}
        models = listed.get("data") if isinstance(listed, Mapping) else None
        models = [one for one in models if isinstance(one, Mapping)] if isinstance(models, list) else []
        # Some servers have one model and take every name for it.
        named = [one for one in models if one.get("id") == self.config.model] or models
        if any("meta" in one and one["meta"] is None for one in named):
            return None  # llama.cpp loads the model, and will say more of it
        found = {name: named[0][name] for name in _TELLING if named[0].get(name)} if len(named) == 1 else {}
        if _is_now(found.get("created"), raw.headers.get("date")):
            del found["created"]
        return {name: value for name, value in found.items() if (name, value) != ("id", self.config.model)}

    def take_wasted(self) -> tuple[int, int]:
        """Tokens of prompts and of completions that replies without a usable answer charged for since the last call."""
        with self._lock:
            wasted, self._wasted = self._wasted, (0, 0)
        return wasted

    def require_going(self) -> None:
        """
        Raises:
            UserError: nothing is asked any more.
        """
        if self._halted.is_set():
            raise UserError(self._why)

    def halt(self, why: str) -> None:
        """Ask no more until `go_on`: an attempt that is under way is the last one of its request."""
        with self._lock:
            if not self._halted.is_set():
                self._why = why
                self._halted.set()

    def go_on(self) -> None:
        """Ask again, unless stopped."""
        with self._lock:
            if not self._closed:
                self._halted.clear()

    def stop(self) -> None:
        """Ask no more, for good."""
        with self._lock:
            self._closed, self._why = True, "the guide was closed while it was asked."
            self._halted.set()

    def close(self) -> None:
        """Close the connections. A thread that still waits at one would not notice, so stop and wait for those first."""
        self.stop()
        self._client.close()

    def _said(self, error: Exception, request: Request) -> str:
        """What a user is told of a request that has failed."""
        where = f"'guide.url' {self.config.url}"
        if isinstance(error, NoScoresError):
            return f"{where} {error}: {ASK_ANOTHER}."
        if not passes(error):
            return refusal(self.config, error, request, self._models)
        asked, advice = _retry_after(error), remedy(error)
        if asked > self.config.patience:
            advice = f"The server wants no request for {math.ceil(asked)} s: raise 'guide.patience' above that, or come back later"
        return (
            f"{where}: no usable answer within {self.config.patience:.0f} s ('guide.patience'); the last attempt ended "
            f"with: {reason(self.config, error)}. {advice}."
        )

    def _patience_left(self, state: RetryCallState) -> float:
        """Seconds; a server that answers others is at work, however long this request has waited."""
        return self.config.patience - (time.monotonic() - max(state.start_time, self._answered))

    def _wait(self, state: RetryCallState) -> float:
        """A random time that grows exponentially, or none where the server says for how long no request should come."""
        error = state.outcome.exception() if state.outcome is not None else None
        self._say_that_nothing_listens(error)
        asked = _retry_after(error)
        with self._lock:
            until = time.monotonic() + min(asked, self.config.patience)
            self._not_before = max(self._not_before, until)
        return 0.0 if asked else min(float(_backoff(state)), max(self._patience_left(state), 0.0))

    def _say_that_nothing_listens(self, error: BaseException | None) -> None:
        """Once, and before its first answer alone: a server may start late, and an address may be wrong."""
        with self._lock:
            says = not (self._answered or self._warned) and any(
                isinstance(cause, ConnectionRefusedError) for cause in causes(error or Exception())
            )
            self._warned |= says
        if says:
            warnings.warn(
                f"No server listens at 'guide.url' {self.config.url} yet; it is asked again for "
                f"{self.config.patience:.0f} s ('guide.patience').",
                stacklevel=2,
            )

    def _wait_for_turn(self, state: RetryCallState) -> None:
        """Raises what `require_going` does."""
        while (left := min(self._not_before - time.monotonic(), self._patience_left(state))) > 0:
            if self._halted.wait(left):
                break
        self.require_going()

    def _attempt(self, request: Request) -> Answer:
        config = self.config
        scored = request.scored
        if scored is not None:
            end = (config.end_token or "") if request.scores_end else ""
            text = request.prefix + scored + end
            parameters = config.scoring_parameters()
            raw = self._client.completions.with_raw_response.create(prompt=text, **parameters)
            return self._read(raw.text, lambda body: read_scores(body, request.prefix, scored, end))
        length = math.ceil(request.max_new_tokens * config.token_ratio)
        messages = chat_messages(config, request)
        begun = [one["role"] for one in messages[-1:]] == ["assistant"]
        parameters = config.parameters(length, request.seed, continues=begun)
        # The raw text: servers differ in more than the client's types allow.
        try:
            if config.style == "completions":
                raw = self._client.completions.with_raw_response.create(prompt=request.prefix, **parameters)
            else:
                raw = self._client.chat.completions.with_raw_response.create(
                    messages=messages,  # type: ignore[arg-type]  # plain mappings
                    **parameters,
                )
            return self._read(raw.text, lambda body: read_reply(body, config.style))
        except (openai.APIStatusError, RefusedError) as error:
            if filtered(error):
                return Answer("", finished=False, refused=True, prompt_tokens=0, completion_tokens=0)
            raise

    def _read(self, text: str, read: Callable[[Any], Answer]) -> Answer:
        """The answer in a reply; what is charged for one without is remembered."""
        reply = parsed(text)
        try:
            if (failure := failure_in(reply)) is not None:
                raise reported(failure)
            return read(reply)
        except Exception:
            if isinstance(reply, Mapping):
                prompt_tokens, completion_tokens = used(reply)
                with self._lock:
                    self._wasted = (self._wasted[0] + prompt_tokens, self._wasted[1] + completion_tokens)
            raise

    def _models(self) -> list[str] | None:
        """The names of the server's models, where it tells them."""
        try:
            return [model.id for model in self._client.models.list()]
        except (openai.OpenAIError, ValueError, AttributeError, TypeError):
            return None


def _is_now(created: Any, date: str | None) -> bool:
    """Whether a model's time is that of the answer: some servers tell the hour where others tell a model's age."""
    now = _seconds_of(date) if date else None
    return isinstance(created, int | float) and abs(created - (now or time.time())) < 60


def _seconds_of(date: str) -> float | None:
    """A date of HTTP in seconds since 1970."""
    try:
        parts = email.utils.parsedate_tz(date)
        return None if parts is None else float(email.utils.mktime_tz(parts))
    except (ValueError, OverflowError, TypeError):
        return None


_backoff = wait_random_exponential(multiplier=0.5, max=20)


def _retry_after(error: BaseException | None) -> float:
    """Seconds after which the server wants to be asked again; 0 where it does not say."""
    if not isinstance(error, openai.APIStatusError):
        return 0.0
    asked = error.response.headers.get("retry-after", "")
    try:
        seconds = float(asked)
    except ValueError:
        seconds = (_seconds_of(asked) or 0.0) - time.time()
    return seconds if 0 < seconds < math.inf else 0.0  # neither in the past nor no number
