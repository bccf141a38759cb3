"""The messages that a chat server is sent of a text, and its answer as the continuation of that text."""

from __future__ import annotations

import re

from rlgf.chat import as_dicts, parted
from rlgf.guides.base import Request
from rlgf.guides.http_config import HTTPGuideConfig

_ECHO = 15
"""Characters of the prefix that an answer must begin with to count as an echo of it, where those are not all."""
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff]"
)
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese."""


def chat_messages(config: HTTPGuideConfig, request: Request) -> list[dict[str, str]]:
    """What a chat API is sent: a chat as it is, or the text so far with the configured instruction around it.

    The written part of the answer is the beginning of the assistant's message where the server continues that;
    otherwise it is the text that an instruction asks to continue.
    """
    if request.messages:
        messages, written = as_dicts(parted(request.messages)[0]), _begun(request)
    else:
        asked = request.prompt if config.continue_message else request.prefix
        messages = [{"role": "user", "content": config.template.replace("{text}", asked)}]
        written = request.written if config.continue_message else ""
    if config.continue_message:
        written = written.rstrip()  # Claude refuses to go on after white space
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
    """The assistant's turn so far."""
    return parted(request.messages)[1] + request.written


def without_echo(config: HTTPGuideConfig, request: Request, text: str) -> str:
    """The answer without a repeated end of the prefix, and parted from it by a space if a word would merge.

    A chat model cannot say whether its answer begins a new word, so in chat style two word
    characters that meet are taken for two words, in scripts that part words with spaces. A server that continues the
    assistant's message goes on exactly where that ends; only the white space that the message was sent without is not
    written twice.
    """
    if config.style == "completions":
        return text
    written = _begun(request)
    if config.continue_message and written.strip():
        unsent = len(written) - len(written.rstrip())
        return text[min(unsent, len(text) - len(text.lstrip())) :]
    prefix = written if request.messages else request.prefix
    said = text.lstrip()
    text = said[found:] if (found := _echo(prefix, said)) else text
    return f" {text}" if _merge(prefix, text) else text


def _merge(before: str, after: str) -> bool:
    """Whether two texts that meet would make one word of two; scripts without spaces part none."""
    met = before[-1:], after[:1]
    return all(one.isalnum() and not _UNSPACED.match(one) for one in met)


def _echo(prefix: str, answer: str) -> int:
    """How many characters at the beginning of an answer repeat the end of the prefix, or all of a short one.

    A part of a word is no echo (`The` and `Then he left`), nor are a few signs, with which any text may begin.
    """
    prefix = prefix.strip()
    least = min(_ECHO, len(prefix))
    if not 0 < least <= len(answer):
        return 0
    head = answer[:least]
    # The longest first, and none longer than the answer, so that a long prefix costs no more than a short one.
    start = max(len(prefix) - len(answer), 0) - 1
    while (start := prefix.find(head, start + 1)) >= 0:
        length = len(prefix) - start
        ends = not _merge(prefix, answer[length:])
        worded = length >= _ECHO or any(map(str.isalnum, head))
        if ends and worded and answer.startswith(prefix[start:]):
            return length
    return 0
