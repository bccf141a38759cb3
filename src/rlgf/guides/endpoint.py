"""Asks an OpenAI-compatible HTTP server for completions, again and again while it fails."""

from __future__ import annotations

import email.utils
import json
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import openai
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from rlgf.errors import UserError
from rlgf.guides.base import Request
from rlgf.guides.failures import RefusedError, parsed, passes, reported
from rlgf.guides.http_config import HTTPGuideConfig
from rlgf.guides.messages import chat_messages, without_echo
from rlgf.guides.refusals import ASK_ANOTHER, reason, refusal
from rlgf.guides.reply import Answer, UnusableAnswerError, read_reply
from rlgf.guides.scored_reply import NoScoresError, read_scores

_TELLING = ("id", "root", "parent", "owned_by", "created", "revision", "version", "digest", "sha", "meta")
"""What a list of models may say of the model behind a name; its other fields change from day to day."""
_LISTING_SECONDS = 5.0
"""That a server's list of models may take."""
_FILTERED = ("content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation")
"""Codes of a prompt that a server does not answer, whoever asks."""


class Endpoint:
    """Asks a server for one completion, or about one text, at a time, again and again while it fails. Safe for threads."""

    def __init__(self, config: HTTPGuideConfig) -> None:
        """
        Raises:
            UserError: a header's environment variable is not set, or a header cannot hold its value.
        """
        self.config = config
        self._closed = threading.Event()
        self._client = openai.OpenAI(
            base_url=config.url,
            api_key=config.key or "none",
            default_headers=config.resolved_headers(),
            timeout=config.timeout,
            max_retries=0,  # retried here, where an answer without a completion is retried too
        )

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def ask(self, request: Request) -> Answer:
        """The server's continuation, or what it says of the text that is to be scored.

        Raises:
            UserError: the server refuses the key, the model or the request, does not say how probable a text is, or
                did not answer within the configured patience.
        """
        retrying = Retrying(
            retry=retry_if_exception(passes),
            stop=stop_after_delay(self.config.patience) | stop_when_event_set(self._closed),
            wait=lambda state: min(_wait(state), self._patience_left(state)),
            sleep=sleep_using_event(self._closed),
            reraise=True,
        )
        try:
            for attempt in retrying:
                with attempt:
                    answer = self._attempt(request)
        except (openai.OpenAIError, UnusableAnswerError, RefusedError) as error:
            if passes(error):
                raise UserError(
                    f"'guide.url' {self.config.url}: no usable answer within {self.config.patience:.0f} s "
                    f"('guide.patience'); the last attempt ended with: {reason(self.config, error)}. Start the server or "
                    "mend the address, then --resume."
                ) from None
            raise UserError(refusal(self.config, error, request, self._models)) from None
        except NoScoresError as error:
            raise UserError(f"'guide.url' {self.config.url} {error}: {ASK_ANOTHER}.") from None
        retries = retrying.statistics["attempt_number"] - 1
        text = answer.text if request.scored is not None else without_echo(self.config, request, answer.text)
        return replace(answer, text=text, retries=retries)

    def describe(self) -> dict[str, Any] | None:
        """What the server says of the model behind its name, in its list of models; None where it does not answer."""
        client = self._client.with_options(timeout=min(self.config.timeout, _LISTING_SECONDS))
        try:
            raw = client.models.with_raw_response.list()
            listed = json.loads(raw.text)
        except openai.APIStatusError as error:
            return None if passes(error) else {}
        except openai.OpenAIError:
            return None
        except (ValueError, RecursionError):
            return {}
        models = listed.get("data") if isinstance(listed, Mapping) else None
        models = [one for one in models if isinstance(one, Mapping)] if isinstance(models, list) else []
        # Some servers have one model and take every name for it.
        named = [one for one in models if one.get("id") == self.config.model] or models
        found = {name: named[0][name] for name in _TELLING if named[0].get(name)} if len(named) == 1 else {}
        if _is_now(found.get("created"), raw.headers.get("date")):
            del found["created"]
        return {name: value for name, value in found.items() if (name, value) != ("id", self.config.model)}

    def stop(self) -> None:
        """Ask no more: an attempt that is under way is the last one of its request."""
        self._closed.set()

    def close(self) -> None:
        """Close the connections. A thread that still waits at one would not notice, so stop and wait for those first."""
        self.stop()
        self._client.close()

    def _patience_left(self, state: RetryCallState) -> float:
        return max(self.config.patience - (state.seconds_since_start or 0.0), 0.0)

    def _attempt(self, request: Request) -> Answer:
        config = self.config
        if request.scored is not None:
            end = (config.end_token or "") if request.scores_end else ""
            text = request.prefix + request.scored + end
            parameters = config.scoring_parameters()
            raw = self._client.completions.with_raw_response.create(prompt=text, **parameters)
            return read_scores(_body(raw.text), request.prefix, request.scored, end)
        length = math.ceil(request.max_new_tokens * config.token_ratio)
        parameters = config.parameters(length, request.seed)
        # The raw text: servers differ in more than the client's types allow.
        try:
            if config.style == "completions":
                raw = self._client.completions.with_raw_response.create(prompt=request.prefix, **parameters)
            else:
                raw = self._client.chat.completions.with_raw_response.create(
                    messages=chat_messages(config, request),  # type: ignore[arg-type]  # plain mappings
                    **parameters,
                )
        except openai.BadRequestError as error:
            if error.code in _FILTERED:
                return Answer("", finished=False, refused=True, prompt_tokens=0, completion_tokens=0)
            raise
        return read_reply(_body(raw.text), config.style)

    def _models(self) -> list[str] | None:
        """The names of the server's models, where it tells them."""
        try:
            return [model.id for model in self._client.models.list()]
        except (openai.OpenAIError, ValueError, AttributeError, TypeError):
            return None


def _body(text: str) -> Any:
    """
    Raises:
        Exception: the text is not JSON, or it reports an error.
    """
    reply = parsed(text)
    if isinstance(reply, Mapping) and reply.get("error"):
        raise reported(reply["error"])
    return reply


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


def _wait(state: RetryCallState) -> float:
    """As long as the server asks for (`Retry-After`), else a random time that grows exponentially."""
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, openai.APIStatusError):
        asked = error.response.headers.get("retry-after", "")
        try:
            seconds = float(asked)
        except ValueError:
            seconds = (_seconds_of(asked) or 0.0) - time.time()
        if seconds > 0:  # neither in the past nor no number
            return seconds
    return float(_backoff(state))
