"""What to make of a server's failures: which are worth another attempt, and what a user can do about the others."""

from __future__ import annotations

import difflib
import json
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.request import getproxies

import openai

from rlgf.errors import nearest
from rlgf.guides.base import Request
from rlgf.guides.http_config import HTTPGuideConfig
from rlgf.guides.reply import UnusableAnswerError

_TRANSIENT = (408, 409, 424, 425, 429, 498)
"""Statuses after which every client asks again; those from 500 on are others, but for 501."""
_SPENT = re.compile(
    r"insufficient_quota|exceeded your current quota(?!.*(retry in|retryDelay))|billing_(hard_limit|not_active)|"
    r"credit balance|insufficient (funds|credits|balance)",
    re.I | re.S,
)
"""What servers say where waiting is of no use; a quota per minute says when to come back."""
_FILTERED = (
    "content_filter",
    "content_policy_violation",
    "invalid_prompt",
    "ResponsibleAIPolicyViolation",
    "data_inspection_failed",
)
"""Codes of a prompt that a server does not answer, whoever asks."""
_FLAGGED = re.compile(
    r"^(?!.*\baccount\b).*(flagged|content exists risk|usage (policy|policies|guidelines)|safety_check|"
    r"content (management )?policy)",
    re.I | re.S,
)
"""What servers say of such a prompt with status 400 or 403."""


class RefusedError(Exception):
    """An error that a server reports with status 200, and that asking again does not mend."""

    def __init__(self, status: int, said: str, code: str | None = None, body: Any = None) -> None:
        super().__init__(said)
        self.status_code, self.code, self.body = status, code, body


def passes(error: BaseException) -> bool:
    """Whether a failure may be gone when the same is asked again."""
    if isinstance(error, openai.APIStatusError | RefusedError):
        return not spent(error) and (
            error.status_code in _TRANSIENT or (error.status_code >= 500 and error.status_code != 501)
        )
    if isinstance(error, openai.APIConnectionError):  # time-outs too
        return unreachable(error) is None
    return isinstance(error, UnusableAnswerError)


def spent(error: BaseException) -> bool:
    """Whether there is no money left, which waiting does not bring."""
    status = getattr(error, "status_code", 0)
    return status == 402 or (status in (400, 403, 429) and bool(_SPENT.search(_all_said(error))))


def _all_said(error: BaseException) -> str:
    """The message and all that came with it, such as a code."""
    return f"{words(error)} {getattr(error, 'body', None)}"


def words(error: BaseException) -> str:
    """The message that a server sent with an error, or the whole error where it sent none."""
    if not isinstance(error, openai.APIStatusError):
        return str(error)
    return f"status {error.status_code}: {_message(error.body) or error.response.text}"


def _message(error: Any) -> str | None:
    """What an error says, and what OpenRouter adds of the server behind it, which is often all that tells the cause."""
    if isinstance(error, list):  # as Gemini sends one error, and FastAPI those of several fields
        return "; ".join(filter(None, map(_message, error))) or None
    if not isinstance(error, Mapping):
        return error if isinstance(error, str) else None
    if isinstance(place := error.get("loc"), list):
        return f"{'.'.join(map(str, place))}: {error.get('msg')}"
    if not (said := error.get("message")):
        return _message(error.get("error") or error.get("detail"))
    more = error.get("metadata")
    raw = more.get("raw") if isinstance(more, Mapping) else None
    return f"{said} ({raw})" if raw else str(said)


def filtered(error: openai.APIStatusError | RefusedError) -> bool:
    """Whether a filter refused the prompt, so that others may be answered."""
    if error.status_code not in (400, 403):
        return False
    page = isinstance(error, openai.APIStatusError) and is_page(error.response.text)
    return error.code in _FILTERED or (not page and bool(_FLAGGED.search(_all_said(error))))


def unreachable(error: BaseException) -> str | None:
    """Why no connection can be had however often it is tried; None where one may be had later."""
    for cause in causes(error):
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


def causes(error: BaseException) -> list[BaseException]:
    """The error and what it came of, the first cause last."""
    found = [error]
    while (cause := found[-1].__cause__ or found[-1].__context__) is not None and cause not in found:
        found.append(cause)
    return found


def parsed(text: str) -> Any:
    """The JSON document that a server replied with.

    Raises:
        UnusableAnswerError: half of a JSON document.
        RefusedError: something else than JSON.
    """
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        if is_page(text):
            raise RefusedError(
                200,
                "a web page instead of JSON: is there a proxy, or does the address lack its version, /v1?",
            ) from error
        if text.lstrip().startswith(("data:", "event:", ":")):
            raise RefusedError(
                200, "a stream instead of one answer: set 'guide.extra_body: {stream: false}'"
            ) from error
        raise UnusableAnswerError(f"a reply that is no JSON ({error})") from error


def is_page(text: str) -> bool:
    """Whether a text is a web page."""
    return bool(re.match(r"\s*<(!doctype|html|head|body|\?xml)", text, re.I))


def failure_in(reply: Any) -> Any:
    """The error in a reply with status 200; None where there is none."""
    if not isinstance(reply, Mapping):
        return None
    choices = reply.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        return reply.get("error") or choices[0].get("error") or None
    return reply.get("error") or reply.get("detail") or (reply if reply.get("message") else None)


def reported(error: Any) -> Exception:
    """An error that came with status 200, as the status in it would have been."""
    said = str(_message(error) or error)
    code = error.get("code", error.get("status")) if isinstance(error, Mapping) else None
    status = int(code) if isinstance(code, int) or (isinstance(code, str) and code.isdecimal()) else 0
    if code in _FILTERED:
        return RefusedError(400, said, code)
    if said.startswith("Unexpected endpoint"):  # LM Studio, of an address without its version
        return RefusedError(404, said)
    if 400 <= status < 500 or status == 501 or _SPENT.search(f"{said} {code}"):
        return RefusedError(status or 402, said, body=error)
    return UnusableAnswerError(f"an error: {said}")


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
    r"only the default|deprecated|removed|must be",
    re.I,
)
_TOO_LONG = re.compile(
    r"too (large|long|big|many)|at most|at least|must be|minimum|maximum|exceed|context", re.I
)
"""What servers say of a number of tokens that they could not give, whatever the parameter's name."""
_CONTEXT = re.compile(r"context|too long|too many tokens|reduce the length|`inputs` (must have|tokens)", re.I)
"""And what they say of a text that is too long for their model."""
_CONTINUES = re.compile(r"prefill|assistant|continue|last message|last role|prefix", re.I)
"""And of a beginning of their answer, which they do not take."""
_NO_KEY = re.compile(r"api.key[ _](is )?(not valid|invalid|expired)|(incorrect|invalid) api.key", re.I)
"""And of a key, some with status 400."""
_NO_MODEL = re.compile(
    r"must provide a chat template|chat_template is not set|template not found|(invalid|no such) model|"
    r"not a valid model|model.{0,200}(not.exist|not.found|has been (decommissioned|deprecated|shut down))",
    re.I,
)
"""And of a model that they do not have, or not for chats."""

ASK_ANOTHER = "name a server that scores prompts, such as vLLM's, or set 'guide.model'"
"""For a server that does not say how probable a text is."""


def refusal(
    config: HTTPGuideConfig, error: Exception, request: Request, models: Callable[[], list[str] | None]
) -> str:
    """Why asking again is of no use, and what to do; ``models`` asks the server which it has, None where it does not say."""
    said = reason(config, error)
    where, status = f"'guide.url' {config.url}", _status(error)
    if isinstance(error, openai.APIConnectionError):
        return f"{where} cannot be reached: {unreachable(error)} ({said})."
    if status == 403 and isinstance(error, openai.APIStatusError) and is_page(error.response.text):
        return (
            f"{where}: what stands before the server lets nothing through ({said}): mend the address, the proxy "
            f"(HTTP_PROXY, HTTPS_PROXY), or the key in the environment variable {config.key_variable}."
        )
    if status == 401 or (status == 403 and not config.key):
        what = "is set, and was refused" if config.key else "is not set"
        return f"{where}: the server wants a key; the environment variable {config.key_variable} {what}."
    if status == 403:
        return f"{where}: the server refuses this key or this model ({said})."
    if spent(error):
        return f"{where}: the account's quota is spent ({said}): pay for more."
    if 300 <= status < 400 and isinstance(error, openai.APIStatusError):
        place = _masked(config, error.response.headers.get("location", ""))
        return f"{where}: the server has moved to {place or 'an address that it does not say'}: write that address."
    if status == 404 or (status == 501 and request.scored is None):
        return f"{where} has no {config.style} for the model '{config.model}' ({said}): {_mend_model(config, models())}"
    refused = _refused(config, error)
    if refused:
        remedies = [_REMEDIES.get(name, f"take '{name}' out of 'guide.extra_body'") for name in refused]
        sent = " or ".join(remedies)
        return f"{where}: the server refuses '{refused[0]}' ({said}): {sent}."
    if request.scored is not None and status in (400, 422, 501) and not _CONTEXT.search(said):
        return f"{where}: the server refuses to say how probable a text is ({said}): {ASK_ANOTHER}."
    if not request.prefix.strip() and not request.messages and status in (400, 422):
        return (
            f"{where}: the server refuses an empty prompt ({said}): give the task's prompts some text, or set "
            "'guide.style: chat'."
        )
    if config.continue_message and request.written and status in (400, 422) and _CONTINUES.search(said):
        return (
            f"{where}: the server does not continue a message ({said}): set 'guide.continue_message: false'."
        )
    if status == 413 or (status in (400, 422) and _CONTEXT.search(said)):
        return (
            f"{where}: a text is too long for its model ({said}): give the model a longer context, leave such prompts out "
            "of the data, or lower 'rollout.max_response_tokens'; 'rollout.max_prompt_tokens' is the policy's alone."
        )
    hint = ", 'guide.extra_body'" if config.extra_body else ""
    return f"{where}: the server refuses the request ({said}); see 'guide.model'{hint} and the rollout's lengths."


def _status(error: Exception) -> int:
    """The status of an error; 401 or 404 where a server sends 400 or 422 for a key or a model that it does not take."""
    status, said = int(getattr(error, "status_code", 0)), _all_said(error)
    others = {401: _NO_KEY, 404: _NO_MODEL} if status in (400, 422) else {}
    return next((other for other, pattern in others.items() if pattern.search(said)), status)


def _mend_model(config: HTTPGuideConfig, names: list[str] | None) -> str:
    if not names:
        return "mend 'guide.model' or 'guide.style', and see that the address ends in the API's version, such as /v1."
    if config.model in names:
        other = "completions" if config.style == "chat" else "chat"
        return f"it has the model, so set 'guide.style: {other}', or a key that may use it."
    if len(names) > 10:
        names = difflib.get_close_matches(config.model, names, n=10) or sorted(names)[:10]
    return f"set 'guide.model' or 'guide.style': {nearest(config.model, names)}"


def _refused(config: HTTPGuideConfig, error: Exception) -> list[str]:
    """The parameters of a request that an error names, the one that it names as the cause first."""
    body = getattr(error, "body", None)
    named = body.get("param") if isinstance(body, Mapping) else None
    sent = config.parameters(1, 0)
    said = words(error)
    names = [name for name in (*sent, *config.extra_body) if name not in ("model", "extra_body")]
    if not _NOT_TAKEN.search(said):
        return []
    if _TOO_LONG.search(said):
        names.remove(config.length_parameter)
    found = [name for name in names if re.search(rf"\b{re.escape(name)}\b", said)]
    return sorted(found, key=lambda name: name != named)


def remedy(error: Exception) -> str:
    """Advice where a server has failed for too long."""
    if isinstance(error, openai.APITimeoutError):
        return "Raise 'guide.timeout', lower 'guide.concurrency' or mend the address"
    if getattr(error, "status_code", 0) == 429:
        return "Lower 'guide.concurrency' or raise 'guide.patience'"
    if not isinstance(error, openai.APIConnectionError):
        return "Look at what the server logs, or mend the address or 'guide.style'"
    return f"Start the server or mend the address{' or the proxy (HTTP_PROXY, HTTPS_PROXY)' * bool(getproxies())}"


def reason(config: HTTPGuideConfig, error: Exception) -> str:
    """The reason in one line, without secrets, which some servers repeat."""
    cause = causes(error)[-1] if isinstance(error, openai.APIConnectionError) else None
    cause = None if cause is error else cause
    text = words(error)
    if isinstance(error, openai.APIStatusError) and is_page(error.response.text):
        text = f"status {error.status_code} with a web page, as a proxy sends it"
    said = " ".join(f"{text} {f'({cause})' if cause else ''}".split())
    return _masked(config, said)[:300].rstrip(".")


def _masked(config: HTTPGuideConfig, said: str) -> str:
    """The same without secrets, also as JSON may spell them."""
    for secret in config.secrets:
        spelled = "".join(rf"(?:\\*{re.escape(sign)}|\\+u{ord(sign):04x})" for sign in secret)
        said = re.sub(spelled, "***", said, flags=re.I)
    return said
