"""Makes the tensors of a rollout from finished drafts, and scores again what a separate engine sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from rlgf.algorithms import Script
from rlgf.chat import transcript
from rlgf.errors import UserError
from rlgf.kept import KeptTokens
from rlgf.models.language_model import LanguageModel
from rlgf.models.response_scores import score_logprobs
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.writers import Draft
from rlgf.types import Author, Rollout, pad, padded


def assemble(
    drafts: Sequence[Draft], groups: Sequence[int], policy: LanguageModel, script: Script | None = None
) -> Rollout:
    """Stack drafts into one rollout, on the CPU.

    Args:
        script: where it has hints, the prompts with and without them are kept; default: where the drafts have any.
    """
    places = [draft.index for draft in drafts]
    # A draw over a shorter text may have taken back all that a guide wrote.
    by_guide = [Author.GUIDE in draft.authors for draft in drafts]
    prompt_ids, prompt_mask = padded([draft.prompt_ids for draft in drafts], policy.end_id, left=True)
    rollout = Rollout(
        samples=tuple(draft.sample for draft in drafts),
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        response_ids=pad([torch.tensor(draft.ids) for draft in drafts], policy.end_id),
        author=pad([torch.tensor(draft.authors, dtype=torch.uint8) for draft in drafts], Author.NOBODY),
        sampled_logprobs=pad([torch.tensor(draft.logprobs) for draft in drafts], 0.0),
        kept=tuple(_kept(draft) for draft in drafts),
        finished=torch.tensor([draft.finished for draft in drafts]),
        group=torch.tensor(groups),
        texts=tuple(_text(draft, policy) for draft in drafts),
        guides=tuple(draft.guide if there else None for draft, there in zip(drafts, by_guide, strict=True)),
        altered=torch.tensor([draft.altered for draft in drafts]) & torch.tensor(by_guide),
        index=None if None in places else torch.tensor(places),
        help_limit=torch.tensor([draft.help_limit for draft in drafts]),
        own_rate=torch.tensor([draft.own_rate for draft in drafts], dtype=torch.float64),
        dialogues=tuple(draft.dialogue for draft in drafts)
        if any(draft.dialogue for draft in drafts)
        else None,
    )
    hinted = any(draft.hint is not None for draft in drafts) if script is None else script.hint is not None
    if not hinted:
        return rollout
    rollout = replace(
        rollout,
        hints=tuple(None if draft.hint is None else draft.hint.text for draft in drafts),
        hint_cut=torch.tensor([draft.hint_cut for draft in drafts]),
    )
    if script is not None and script.guide_hinted:
        told = [draft.prompt_ids if draft.hint is None else draft.hint.ids for draft in drafts]
        ids, mask = padded(told, policy.end_id, left=True)
        return replace(rollout, guide_ids=ids, guide_mask=mask)
    bare = [draft.prompt_ids if draft.hint is None else draft.hint.bare_ids for draft in drafts]
    ids, mask = padded(bare, policy.end_id, left=True)
    taken = torch.tensor([0 if draft.hint is None else draft.hint.taken for draft in drafts])
    return replace(rollout, bare_ids=ids, bare_mask=mask, hint_taken=taken)


def _text(draft: Draft, policy: LanguageModel) -> str:
    if draft.dialogue and draft.sample.messages:  # between turns stands what the template writes
        return transcript(draft.dialogue)
    return policy.decode(draft.ids, policy.context(draft.prompt_ids))


def _kept(draft: Draft) -> KeptTokens | None:
    """What each token of a draft was drawn from; tokens of others were not drawn by the policy."""
    if not draft.kept:
        return None
    return KeptTokens.join(draft.kept).spread(torch.tensor(draft.authors) == Author.POLICY)


def rescored(rollout: Rollout, policy: LanguageModel, config: RolloutConfig) -> Rollout:
    """A rollout whose log-probabilities are the trained model's, beside those of the engine that sampled it.

    So ratios, the KL penalty and the entropy are all of one model, and an unchanged policy has ratio 1 and KL 0.
    """
    by_policy, engine = rollout.written_by(Author.POLICY), rollout.engine_logprobs
    if engine is None:  # else earlier weights have scored it already
        engine = rollout.sampled_logprobs
    if not by_policy.any():
        # The shares of other processes may have tokens of the policy's, and all must have the same fields.
        return replace(rollout, engine_logprobs=engine)
    with policy.running() as model:
        found = score_logprobs(model, rollout, config.sampling, policy.end_ids, config.max_batch_tokens)
    trainer = torch.where(by_policy, found, engine)
    return replace(rollout, sampled_logprobs=trainer, engine_logprobs=engine)


def require_same_weights(rollout: Rollout, largest_gap: float) -> None:
    """
    Raises:
        UserError: the two log-probabilities of a rescored rollout differ too much for the engine to have written with
            the model's weights.
    """
    if rollout.engine_logprobs is None or not rollout.written_by(Author.POLICY).any():
        return
    gap = float(gaps(rollout).mean())
    # Written so that a gap that is no number is refused, too.
    if not gap <= largest_gap:
        raise UserError(
            f"the engine's log-probabilities of its own texts are {gap:.3g} nats per token from those of the policy, "
            f"more than 'sampler.largest_gap' {largest_gap:g}: it does not write with the policy's weights; set "
            "'sampler.engine: builtin', or a larger bound if its precision explains that."
        )


def gaps(rollout: Rollout) -> Float[Tensor, "N"]:
    """|log p(trainer) - log p(engine)| of each token of the policy's."""
    assert rollout.engine_logprobs is not None, "written by a separate engine"
    gap = (rollout.sampled_logprobs - rollout.engine_logprobs).abs()
    return gap[rollout.written_by(Author.POLICY)]
