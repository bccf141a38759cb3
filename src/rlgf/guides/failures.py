"""Which failures of a server are worth another attempt, and what each of them says."""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Mapping
from typing import Any

import openai

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
    r"^(?!.*\baccount\b).*(flagged|content exists risk|usage (policy|policies|guidelines)|safety_check|content policy)",
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
    details = [getattr(error, name, None) for name in ("code", "type")]
    return status == 402 or (status in (400, 403, 429) and bool(_SPENT.search(f"{words(error)} {details}")))


def words(error: BaseException) -> str:
    """What a server said of an error: its message, or all that it sent where there is none."""
    if not isinstance(error, openai.APIStatusError):
        return str(error)
    message = error.body.get("message") if isinstance(error.body, Mapping) else None
    return f"status {error.status_code}: {message or error.response.text}"


def filtered(error: openai.APIStatusError | RefusedError) -> bool:
    """Whether a filter refused the prompt, so that others may be answered."""
    if error.status_code not in (400, 403):
        return False
    page = isinstance(error, openai.APIStatusError) and is_page(error.response.text)
    return error.code in _FILTERED or (not page and bool(_FLAGGED.search(f"{words(error)} {error.body}")))


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
        if text.lstrip().startswith(("data:", "event:")):
            raise RefusedError(
                200, "a stream instead of one answer: set 'guide.extra_body: {stream: false}'"
            ) from error
        raise UnusableAnswerError(f"a reply that is no JSON ({error})") from error


def is_page(text: str) -> bool:
    """Whether a text is a web page."""
    return bool(re.match(r"\s*<(!doctype|html|head|body|\?xml)", text, re.I))


def failure_in(reply: Any) -> Any:
    """What a reply with status 200 holds in place of an answer; None where it holds none."""
    if not isinstance(reply, Mapping):
        return None
    choices = reply.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        return reply.get("error") or choices[0].get("error") or None
    return reply.get("error") or reply.get("detail") or (reply if reply.get("message") else None)


def reported(error: Any) -> Exception:
    """An error that came with status 200, as the status in it would have been."""
    said = str(error.get("message", error)) if isinstance(error, Mapping) else str(error)
    code = error.get("code", error.get("status")) if isinstance(error, Mapping) else None
    status = int(code) if isinstance(code, int) or (isinstance(code, str) and code.isdecimal()) else 0
    if code in _FILTERED:
        return RefusedError(400, said, code)
    if 400 <= status < 500 or status == 501 or _SPENT.search(f"{said} {code}"):
        return RefusedError(status or 402, said, body=error)
    return UnusableAnswerError(f"an error: {said}")
