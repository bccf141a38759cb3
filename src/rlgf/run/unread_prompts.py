"""Prompts with characters that the policy's tokenizer does not have, as a sentence: the policy does not see them."""

from __future__ import annotations

from rlgf.models.text import Codec
from rlgf.tasks.chats import Prompted

_SEEN = 256
"""Prompts that are looked at, which takes no time."""


def unread_prompts(samples: Prompted, codec: Codec) -> list[str]:
    """What is to be said of prompts that are dropped or read as unknown: no sentence or one."""
    count = min(_SEEN, len(samples))
    unread = [number for number in range(count) if _unread(samples[number].prompt, codec)]
    if not unread:
        return []
    first = "first " if count < len(samples) else ""
    return [
        f"{len(unread):,} of the {first}{count:,} prompts of 'train' hold characters that the policy's tokenizer does not "
        f"have, so that the policy does not read them (the first: {samples.place(unread[0])}): choose another policy, or "
        "write the prompts in its characters."
    ]


def _unread(prompt: str, codec: Codec) -> bool:
    ids, unknown = codec.encode_prompt(prompt), codec.tokenizer.unk_token
    # A template may write out the token for what is unknown, which in GPT-2 is the end of text.
    lost = unknown is not None and unknown not in prompt and codec.tokenizer.unk_token_id in ids
    return bool(prompt.strip()) and (lost or not ids)
