"""The first requests to a server before a run, and a check that it repeats its scores."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from rlgf.errors import UserError
from rlgf.guides.base import Request
from rlgf.guides.http import HTTPGuide
from rlgf.objectives.alignment import Piece
from rlgf.types import Sample

MOST_DIFFERENCE = 0.05
"""Nats per token. Policy and guide differ by some tenths of a nat where there is something to learn."""

_SCORED_FIRST = (
    " The first answer is a short one, and it ends here.",
    " Another one: 12 of 37 birds, é and ü among them, flew north.",
)


def first_request(train: Sequence[Sample], max_new_tokens: int, written: str = "") -> Request:
    """A request for a remote guide before models load, so that its faults show early; ``written`` begins its answer."""
    longest = _longest(train)
    length = len(longest.prompt) if written else None
    prefix = longest.prompt + written
    return Request(prefix, max_new_tokens, seed=0, prompt_length=length, messages=longest.messages)


def scored_first(train: Sequence[Sample]) -> list[Request]:
    """The texts that a remote guide scores twice before a run that learns from its scores."""
    chosen = [train[0], _longest(train)]
    return [
        Request(one.prompt, 1, seed=0, prompt_length=len(one.prompt), messages=one.messages, scored=text)
        for one, text in zip(chosen, _SCORED_FIRST, strict=True)
    ]


def _longest(train: Sequence[Sample]) -> Sample:
    return max((train[i] for i in range(min(256, len(train)))), key=lambda sample: len(sample.prompt))


def check_repeats(guide: HTTPGuide, requests: Sequence[Request]) -> None:
    """Score some texts twice, first one by one and then all at once, and compare. All of it is booked to the guide.

    Raises:
        UserError: the server gives no log-probabilities, or others the second time.
    """
    # Without a cache every text is asked about each time.
    with closing(HTTPGuide(guide.config.model_copy(update={"cache": None}))) as anew:
        anew.usage = guide.usage
        try:
            alone = [anew.score([request])[0] for request in requests]
            together = anew.score(requests)
        finally:
            guide.usage = anew.usage
    for first, second in zip(alone, together, strict=True):
        gap = difference(first, second)
        if gap is None or gap > MOST_DIFFERENCE:
            how = "were cut into other tokens" if gap is None else f"differ by {gap:.2g} nats per token"
            raise UserError(
                f"'guide.url' {guide.config.url}: a text was scored twice, and the answers {how} (at most {MOST_DIFFERENCE:g} are "
                "allowed): serve one model, in float32 or so that results do not depend on the batch "
                "(VLLM_BATCH_INVARIANT=1 on vLLM), or name another server."
            )


def difference(first: Sequence[Piece], second: Sequence[Piece]) -> float | None:
    """How far two answers are apart, in nats per token; None where they are of different tokens."""
    if [piece[:2] for piece in first] != [piece[:2] for piece in second]:
        return None
    gaps = [abs(one.logprob - other.logprob) for one, other in zip(first, second, strict=True)]
    return sum(gaps) / max(len(gaps), 1)
