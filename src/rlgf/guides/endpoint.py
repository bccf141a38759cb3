"""Asks an OpenAI-compatible HTTP server for completions, again and again while it fails."""

from __future__ import annotations

import email.utils
import json
import math
import re
import socket
import ssl
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

from rlgf.chat import as_dicts, parted
from rlgf.errors import UserError, nearest
from rlgf.guides.base import Request
from rlgf.guides.http_config import HTTPGuideConfig
from rlgf.guides.reply import Answer, UnusableAnswerError, read_reply

_TELLING = ("id", "root", "parent", "owned_by", "created", "revision", "version", "digest", "sha", "meta")
"""What a list of models may say of the model behind a name; its other fields change from day to day."""
_LISTING_SECONDS = 5.0
"""That a server's list of models may take."""
_ECHO = 15
"""Characters of the prefix that an answer must begin with to count as an echo of it."""
_TRANSIENT = (408, 409, 425, 429)
"""Statuses after which every client asks again; those from 500 on are others."""
_SPENT = re.compile(
    r"insufficient_quota|exceeded your current quota(?!.*(retry in|retryDelay))|billing_(hard_limit|not_active)|"
    r"credit balance|insufficient (funds|credits|balance)",
    re.I | re.S,
)
"""What servers say where waiting is of no use; a quota per minute says when to come back."""
_REMEDIES = {
    "max_completion_tokens": "set 'guide.length_parameter: max_tokens'",
    "max_tokens": "set 'guide.length_parameter: max_completion_tokens'",
    "temperature": "leave it out with 'guide.temperature: null'",
    "top_p": "leave it out with 'guide.top_p: null'",
    "seed": "leave it out with 'guide.send_seed: false'",
    "stop": "leave it out with 'guide.stop: []'",
}
"""What to write into a recipe for a server that does not take a parameter."""


_NOT_TAKEN = re.compile(
    r"unsupported|not support|not permitted|not allowed|unexpected|unrecognized|unknown|extra|cannot both|invalid|"
    r"only the default|deprecated|removed",
    re.I,
)
_TOO_LONG = re.compile(r"too (large|long|big|many)|at most|at least|minimum|maximum|exceed|context", re.I)
"""What servers say of a number of tokens that they could not give, whatever the parameter's name."""
_FILTERED = ("content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation")
"""Codes of a prompt that a server does not answer, whoever asks."""


class _RefusedError(Exception):
    """An error that a server reports with status 200, and that asking again does not mend."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status_code = status


class Endpoint:
    """Asks a server for one completion at a time, again and again while it fails. Safe for threads."""

    def __init__(self, config: HTTPGuideConfig) -> None:
        """
        Raises:
            UserError: a header's environment variable is not set, or a header cannot hold its value.
        """
        self.config = config
        self._closed = threading.Event()
        self._key = config.key
        self._client = openai.OpenAI(
            base_url=config.url,
            api_key=self._key or "none",
            default_headers=config.resolved_headers(),
            timeout=config.timeout,
            max_retries=0,  # retried here, where an answer without a completion is retried too
        )

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def ask(self, request: Request) -> Answer:
        """The server's continuation.

        Raises:
            UserError: the server refuses the key, the model or the request, or did not answer
                within the configured patience.
        """
        retrying = Retrying(
            retry=retry_if_exception(_passes),
            stop=stop_after_delay(self.config.patience) | stop_when_event_set(self._closed),
            wait=lambda state: min(_wait(state), self._patience_left(state)),
            sleep=sleep_using_event(self._closed),
            reraise=True,
        )
        try:
            for attempt in retrying:
                with attempt:
                    answer = self._attempt(request)
        except (openai.OpenAIError, UnusableAnswerError, _RefusedError) as error:
            if _passes(error):
                raise UserError(
                    f"'guide.url' {self.config.url}: no usable answer within {self.config.patience:.0f} s "
                    f"('guide.patience'); the last attempt ended with: {self._said(error)}. Start the server or "
                    "mend the address, then --resume."
                ) from None
            raise UserError(self._refusal(error, request)) from None
        retries = retrying.statistics["attempt_number"] - 1
        return replace(answer, text=self._without_echo(request, answer.text), retries=retries)

    def describe(self) -> dict[str, Any] | None:
        """What the server says of the model behind its name, in its list of models; None where it does not answer."""
        client = self._client.with_options(timeout=min(self.config.timeout, _LISTING_SECONDS))
        try:
            raw = client.models.with_raw_response.list()
            listed = json.loads(raw.text)
        except openai.APIStatusError as error:
            return None if _passes(error) else {}
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
        length = math.ceil(request.max_new_tokens * config.token_ratio)
        parameters = config.parameters(length, request.seed)
        # The raw text: servers differ in more than the client's types allow.
        try:
            if config.style == "completions":
                raw = self._client.completions.with_raw_response.create(prompt=request.prefix, **parameters)
            else:
                raw = self._client.chat.completions.with_raw_response.create(
                    messages=chat_messages(self.config, request),  # type: ignore[arg-type]  # plain mappings
                    **parameters,
                )
        except openai.BadRequestError as error:
            if error.code in _FILTERED:
                return Answer("", finished=False, refused=True, prompt_tokens=0, completion_tokens=0)
            raise
        reply = _parsed(raw.text)
        if isinstance(reply, Mapping) and reply.get("error"):
            raise _reported(reply["error"])
        return read_reply(reply, config.style)

    def _without_echo(self, request: Request, text: str) -> str:
        """The answer without a repeated end of the prefix, and parted from it by a space if a word would merge.

        A chat model cannot say whether its answer begins a new word, so in chat style two word
        characters that meet are taken for two words.
        """
        if self.config.style == "completions":
            return text
        prefix = _begun(request) if request.messages else request.prefix
        stripped = text.lstrip()
        for start in range(max(len(prefix) - _ECHO + 1, 1)):
            echoed = prefix[start:].strip()
            if echoed and stripped.startswith(echoed):
                text = stripped[len(echoed) :]
                break
        if prefix[-1:].isalnum() and text[:1].isalnum():
            return " " + text
        return text

    def _refusal(self, error: Exception, request: Request) -> str:
        """Why asking again is of no use, and what to do."""
        config, said = self.config, self._said(error)
        where, status = f"'guide.url' {config.url}", getattr(error, "status_code", 0)
        if isinstance(error, openai.APIConnectionError):
            return f"{where} cannot be reached: {_unreachable(error)} ({said})."
        if status == 401 or (status == 403 and not self._key):
            what = "is set, and was refused" if self._key else "is not set"
            return f"{where}: the server wants a key; the environment variable {config.key_variable} {what}."
        if status == 403:
            return f"{where}: the server refuses this key or this model ({said})."
        if _spent(error):
            return f"{where}: the account's quota is spent ({said}): pay for more, then --resume."
        if status == 404:
            return f"{where} has no {config.style} for the model '{config.model}' ({said}): {self._models()}"
        refused = self._refused(error)
        if refused:
            remedies = [_REMEDIES.get(name, f"take '{name}' out of 'guide.extra_body'") for name in refused]
            sent = " or ".join(remedies)
            return f"{where}: the server refuses '{refused[0]}' ({said}): {sent}."
        if not request.prefix.strip() and not request.messages and status in (400, 422):
            return (
                f"{where}: the server refuses an empty prompt ({said}): give the task's prompts some text, or set "
                "'guide.style: chat'."
            )
        hint = ", 'guide.extra_body'" if config.extra_body else ""
        return f"{where}: the server refuses the request ({said}); see 'guide.model'{hint} and the rollout's lengths."

    def _refused(self, error: Exception) -> list[str]:
        """The parameters of a request that an error names, the one that it names as the cause first."""
        body = getattr(error, "body", None)
        named = body.get("param") if isinstance(body, Mapping) else None
        sent = self.config.parameters(1, 0)
        said = _words(error)
        names = [name for name in (*sent, *self.config.extra_body) if name not in ("model", "extra_body")]
        if not _NOT_TAKEN.search(said):
            return []
        if _TOO_LONG.search(said):
            names.remove(self.config.length_parameter)
        found = [name for name in names if re.search(rf"\b{re.escape(name)}\b", said)]
        return sorted(found, key=lambda name: name != named)

    def _models(self) -> str:
        try:
            names = [model.id for model in self._client.models.list()]
        except (openai.OpenAIError, ValueError, AttributeError, TypeError):
            return "check that the address ends in the API's version, such as /v1, or set 'guide.style'."
        return f"set 'guide.model' or 'guide.style'. {nearest(self.config.model, names)}"

    def _said(self, error: Exception) -> str:
        """The reason in one line, without secrets, which some servers repeat."""
        cause = _causes(error)[-1] if isinstance(error, openai.APIConnectionError) else None
        cause = None if cause is error else cause
        text = _words(error)
        if isinstance(error, openai.APIStatusError) and _is_page(error.response.text):
            text = f"status {error.status_code} with a web page, as a proxy sends it"
        said = " ".join(f"{text} {f'({cause})' if cause else ''}".split())
        for secret in self.config.secrets:
            said = said.replace(secret, "***")
        return said[:300].rstrip(".")


def chat_messages(config: HTTPGuideConfig, request: Request) -> list[dict[str, str]]:
    """What a chat API is sent: a chat as it is, or the text so far with the configured instruction around it.

    What is written of the answer is the beginning of the assistant's message where the server continues that;
    otherwise it is the text that an instruction asks to continue.
    """
    if request.messages:
        messages, written = as_dicts(parted(request.messages)[0]), _begun(request)
    else:
        asked = request.prompt if config.continue_message else request.prefix
        messages = [{"role": "user", "content": config.template.replace("{text}", asked)}]
        written = request.written if config.continue_message else ""
    if config.system is not None:
        if messages and messages[0]["role"] == "system":  # which many models take once
            messages[0]["content"] = f"{config.system}\n\n{messages[0]['content']}"
        else:
            messages.insert(0, {"role": "system", "content": config.system})
    if written:
        messages.append({"role": "assistant", "content": written})
        if not config.continue_message:
            messages.append({"role": "user", "content": config.template.replace("{text}", written)})
    return messages


def _begun(request: Request) -> str:
    """What stands of the assistant's turn in a chat already."""
    return parted(request.messages)[1] + request.written


def _passes(error: BaseException) -> bool:
    """Whether a failure may be gone when the same is asked again."""
    if isinstance(error, openai.APIStatusError | _RefusedError):
        return not _spent(error) and (error.status_code in _TRANSIENT or error.status_code >= 500)
    if isinstance(error, openai.APIConnectionError):  # time-outs too
        return _unreachable(error) is None
    return isinstance(error, UnusableAnswerError)


def _spent(error: BaseException) -> bool:
    """Whether there is no money left, which waiting does not bring."""
    status = getattr(error, "status_code", 0)
    details = [getattr(error, name, None) for name in ("code", "type")]
    return status == 402 or (status in (400, 403, 429) and bool(_SPENT.search(f"{_words(error)} {details}")))


def _words(error: BaseException) -> str:
    """What a server said of an error: its message, or all that it sent where there is none."""
    if not isinstance(error, openai.APIStatusError):
        return str(error)
    message = error.body.get("message") if isinstance(error.body, Mapping) else None
    return f"status {error.status_code}: {message or error.response.text}"


def _unreachable(error: BaseException) -> str | None:
    """Why no connection can be had however often it is tried; None where one may be had later."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "its certificate is not trusted; name the authority's file in the environment variable SSL_CERT_FILE"
        if isinstance(cause, ssl.SSLError) and cause.reason in (
            "WRONG_VERSION_NUMBER",
            "RECORD_LAYER_FAILURE",
        ):
            return "it does not speak TLS; write http:// for https://"
        if isinstance(cause, socket.gaierror) and cause.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
            return "no such host is known; mend the address"
    return None


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what it came of, the first cause last."""
    found = [error]
    while (cause := found[-1].__cause__ or found[-1].__context__) is not None and cause not in found:
        found.append(cause)
    return found


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


def _parsed(text: str) -> Any:
    """
    Raises:
        UnusableAnswerError: half of a JSON document.
        _RefusedError: something else than JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if _is_page(text):
            raise _RefusedError(
                200,
                "a web page instead of JSON: is there a proxy, or does the address lack its version, /v1?",
            ) from error
        if text.lstrip().startswith(("data:", "event:")):
            raise _RefusedError(
                200, "a stream instead of one answer: set 'guide.extra_body: {stream: false}'"
            ) from error
        raise UnusableAnswerError(f"a reply that is no JSON ({error})") from error


def _is_page(text: str) -> bool:
    return bool(re.match(r"\s*<(!doctype|html|head|body|\?xml)", text, re.I))


def _reported(error: Any) -> Exception:
    """An error that came with status 200, as the status in it would have been."""
    said = str(error.get("message", error)) if isinstance(error, Mapping) else str(error)
    code = error.get("code", error.get("status")) if isinstance(error, Mapping) else None
    status = int(code) if isinstance(code, int) or (isinstance(code, str) and code.isdecimal()) else 0
    if 400 <= status < 500 or _SPENT.search(f"{said} {code}"):
        return _RefusedError(status or 402, said)
    return UnusableAnswerError(f"an error: {said}")


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
