"""What a chat API is sent of a text to continue, and the answer as the continuation of that text."""

from __future__ import annotations

from rlgf.chat import as_dicts, parted
from rlgf.guides.base import Request
from rlgf.guides.http_config import HTTPGuideConfig

_ECHO = 15
"""Characters of the prefix that an answer must begin with to count as an echo of it."""


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


def without_echo(config: HTTPGuideConfig, request: Request, text: str) -> str:
    """The answer without a repeated end of the prefix, and parted from it by a space if a word would merge.

    A chat model cannot say whether its answer begins a new word, so in chat style two word
    characters that meet are taken for two words.
    """
    if config.style == "completions":
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
