"""Finished drafts as the tensors of a rollout."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rlgf.kept import KeptTokens
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.writers import Draft
from rlgf.types import Author, Rollout, pad


def assemble(drafts: Sequence[Draft], groups: Sequence[int], policy: LanguageModel) -> Rollout:
    """Stack drafts into one rollout, on the CPU."""
    places = [draft.index for draft in drafts]
    return Rollout(
        samples=tuple(draft.sample for draft in drafts),
        prompt_ids=pad([torch.tensor(draft.prompt_ids) for draft in drafts], policy.end_id, left=True),
        prompt_mask=pad(
            [torch.ones(len(draft.prompt_ids), dtype=torch.bool) for draft in drafts], False, left=True
        ),
        response_ids=pad([torch.tensor(draft.ids) for draft in drafts], policy.end_id),
        author=pad([torch.tensor(draft.authors, dtype=torch.uint8) for draft in drafts], Author.NOBODY),
        sampled_logprobs=pad([torch.tensor(draft.logprobs) for draft in drafts], 0.0),
        kept=tuple(_kept(draft) for draft in drafts),
        finished=torch.tensor([draft.finished for draft in drafts]),
        group=torch.tensor(groups),
        texts=tuple(policy.decode(draft.ids, policy.context(draft.prompt_ids)) for draft in drafts),
        guides=tuple(draft.guide for draft in drafts),
        altered=torch.tensor([draft.altered for draft in drafts]),
        index=None if None in places else torch.tensor(places),
        help_limit=torch.tensor([draft.help_limit for draft in drafts]),
        own_rate=torch.tensor([draft.own_rate for draft in drafts], dtype=torch.float64),
    )


def _kept(draft: Draft) -> KeptTokens | None:
    """What each token of a draft was drawn from; tokens of others were not drawn by the policy."""
    if not draft.kept:
        return None
    return KeptTokens.join(draft.kept).spread(torch.tensor(draft.authors) == Author.POLICY)
