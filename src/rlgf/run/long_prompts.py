"""Prompts that lose their beginning, as a sentence: that may be what they were to be told first."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from rlgf.config import Config
from rlgf.models.encoder_decoder import is_encoder_decoder
from rlgf.models.text import Codec
from rlgf.run.build import Parts
from rlgf.types import Sample

_SEEN = 256
"""Prompts that are looked at, which takes no time."""


def long_prompts(samples: Sequence[Sample], codec: Codec, limit: int, *, ends: bool = False) -> str | None:
    """What is to be said of prompts over ``limit`` tokens; None where the first 256 fit.

    Those with a cue are cut where their task wants them to be.

    Args:
        ends: whether what the tokenizer puts after a text counts too, as it does for an encoder.
    """
    some = list(islice(samples, _SEEN))
    around = limit - codec.room(limit, ends=ends)
    lengths = [around + len(codec.encode_prompt(sample.prompt)) for sample in some if not sample.cue]
    over = [length for length in lengths if length > limit]
    if not over:
        return None
    first = "first " if len(some) < len(samples) else ""
    return (
        f"{len(over):,} of the {first}{len(some):,} prompts of 'train' are over {limit:,} tokens and lose their beginning "
        f"(the longest has {max(over):,}): raise 'rollout.max_prompt_tokens'."
    )


def cut_prompts(parts: Parts, config: Config) -> list[str]:
    """`long_prompts` of a run, as no sentence or one."""
    if parts.task.continues_texts:
        return []
    ends = is_encoder_decoder(parts.policy.model)
    said = long_prompts(parts.train, parts.policy.codec, config.rollout.max_prompt_tokens, ends=ends)
    return [] if said is None else [said]
