"""How probable a guide finds the texts of episodes, token by token."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlgf.guides.base import Request, TextScoringGuide
from rlgf.models.language_model import LanguageModel
from rlgf.models.text import token_ends
from rlgf.objectives.alignment import chunks
from rlgf.types import Author, Rollout


def guide_scores(
    guide: TextScoringGuide, policy: LanguageModel, rollout: Rollout
) -> tuple[Int[Tensor, "B T"], Float[Tensor, "B T"]]:
    """The chunks that the tokens of a rollout belong to, and the guide's log-probability of each token's chunk.

    Returns:
        See `Scored.chunks` and `Scored.guide_logprobs`.
    """
    rows = range(len(rollout))
    texts = [text.rstrip("\ufffd") for text in rollout.texts]  # Of half a character nothing can be said.
    asked = [row for row in rows if texts[row] or _ended(rollout, row)]
    found = guide.score([_request(rollout, row, texts[row]) for row in asked])
    numbers = torch.zeros(rollout.response_ids.shape, dtype=torch.long)
    logprobs = torch.zeros(rollout.response_ids.shape)
    for row, pieces in zip(asked, found, strict=True):
        prompt, ids = _tokens(rollout, row)
        ends = token_ends(policy.codec, ids, policy.context(prompt), texts[row])
        own = (rollout.author[row, : len(ids)] == Author.POLICY).tolist()
        ended = _ended(rollout, row) and bool(pieces) and pieces[-1].begin == pieces[-1].end
        of, values = chunks(ends, pieces, own, ended=ended)
        numbers[row, : len(ids)], logprobs[row, : len(ids)] = torch.tensor(of), torch.tensor(values)
    return numbers, logprobs


def _tokens(rollout: Rollout, row: int) -> tuple[list[int], list[int]]:
    prompt = rollout.prompt_ids[row][rollout.prompt_mask[row]].tolist()
    return prompt, rollout.response_ids[row, : int(rollout.lengths[row])].tolist()


def _ended(rollout: Rollout, row: int) -> bool:
    """Whether a response ends in the policy's own token."""
    return (
        bool(rollout.finished[row])
        and int(rollout.author[row, int(rollout.lengths[row]) - 1]) == Author.POLICY
    )


def _request(rollout: Rollout, row: int, text: str) -> Request:
    # Without a seed of its own, so that a text that comes again is asked about once.
    sample, (prompt, ids) = rollout.samples[row], _tokens(rollout, row)
    return Request(
        sample.prompt,
        max_new_tokens=1,
        seed=0,
        prompt_ids=tuple(prompt),
        prompt_length=len(sample.prompt),
        messages=sample.messages,
        sample=sample,
        scored=text,
        scored_ids=tuple(ids),
        scores_end=_ended(rollout, row),
    )
