"""Cuts an optimizer step into micro-batches, measures how far it moves the policy, and checks what comes of an update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from rlgf import distributed
from rlgf.algorithms import Algorithm, Span, View
from rlgf.finite import require_finite
from rlgf.learning.inputs import StepTerm, read_by_any
from rlgf.models import launcher, sharding
from rlgf.models.critic import Critic
from rlgf.models.forward import Tokens, length_batches, response_outputs
from rlgf.models.language_model import LanguageModel
from rlgf.models.response_scores import score_logprobs
from rlgf.models.sampling import Sampling, token_logprobs
from rlgf.types import Author, Experience, Rollout


def minibatches(
    experience: Experience, references: Rollout | None, size: int, generator: torch.Generator
) -> Iterator[tuple[Experience, Rollout | None]]:
    """The optimizer steps of an epoch: their episodes, and the reference texts that go with them.

    These are of the same samples. Not all samples have pairs, so beside pairs the references are dealt out apart: each
    is then read, also where all texts of its group earned the same.

    Args:
        size: episodes of a step.
    """
    units = experience.units
    steps = torch.randperm(len(units), generator=generator).split(max(1, size // units.shape[1]))
    apart: Sequence[Tensor] = ()
    if references is not None and experience.pairs is not None:
        steps = steps if len(units) else (torch.arange(0),)
        apart = torch.randperm(len(references), generator=generator).tensor_split(len(steps))
    elif not len(units):
        return
    for number, chosen in enumerate(steps):
        rows = apart[number] if apart else units[chosen].flatten()
        yield experience.take_units(chosen), None if references is None else references[rows]


def micro_batches(
    batch: Experience, reads: Bool[Tensor, "B T"], max_tokens: int, device: torch.device
) -> Iterator[tuple[Experience, Tokens, bool]]:
    """Micro-batches of the units that a loss reads, each cut after the last token it reads.

    A causal model's output does not depend on later tokens, so the rest need not be run.

    Args:
        max_tokens: of one micro-batch, padding included.

    Returns:
        Episodes, their tokens on the device, and whether they count; see `dealt_out`.
    """
    units = batch.units
    together = units.shape[1]
    chosen = reads[units].any(dim=2).any(dim=1).nonzero().squeeze(1)
    positions = torch.arange(1, reads.shape[1] + 1)
    ends = (reads * positions).amax(dim=1)[units[chosen]].amax(dim=1)
    prompts = batch.rollout.prompt_tokens[units[chosen]].amax(dim=1)
    for picked, counts in dealt_out(prompts, ends, max_tokens // together):
        micro = batch.take_units(chosen[picked])
        tokens = Tokens.of(micro.rollout).cut(int(ends[picked].max()))
        yield micro, tokens.to(device), counts


def dealt_out(
    prompts: Int[Tensor, "N"], ends: Int[Tensor, "N"], max_tokens: int
) -> Iterator[tuple[Int[Tensor, "_"], bool]]:
    """This process's micro-batches of rows, and whether each counts.

    Processes that share the weights of a model make equally many passes with gradients: one that has fewer
    micro-batches than another reads a row once more, in vain.

    Args:
        prompts: tokens of each row's prompt, the same in all processes.
        ends: tokens that are read of each row's response.
        max_tokens: of one micro-batch, padding included.
    """

    def share(number: int) -> list[Tensor]:
        rows = torch.arange(len(prompts))[number :: distributed.count()]
        return [rows[picked] for picked in length_batches(prompts[rows], ends[rows], max_tokens)]

    mine = share(distributed.rank())
    yield from ((rows, True) for rows in mine)
    if launcher.wanted() and len(prompts):
        most = max(len(share(number)) for number in range(distributed.count()))
        shortest = (prompts + ends).argmin()[None]
        yield from [(shortest, False)] * (most - len(mine))


@dataclass(frozen=True)
class Moved:
    """The tokens over which it is measured how far an update has moved the policy."""

    all_known: bool
    """Whether the probabilities before the update are known for what others wrote, too."""
    tokens: float
    view: View | None = None
    """Which view of the prompts the tokens are scored after; None where there is only one."""

    @staticmethod
    def of(batch: Experience, reads: Bool[Tensor, "B T"], view: View | None = None) -> Moved | None:
        """None where there is no token to measure it at.

        Args:
            reads: the tokens that the terms over the policy's outputs read.
            view: what they are scored after.
        """
        moved = Moved(batch.scored.old_logprobs is not None, 0.0, view)
        tokens = float(moved.compared(batch, reads).sum())
        return replace(moved, tokens=tokens) if tokens else None

    def compared(self, batch: Experience, reads: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
        if self.view is View.PROMPT:
            # What was sampled after a hint had another probability from the start.
            reads = reads & ~batch.rollout.hinted[:, None]
        return reads if self.all_known else reads & batch.rollout.written_by(Author.POLICY)


@dataclass(frozen=True)
class Pass:
    """One pass of the policy over the episodes of an optimizer step."""

    episodes: Experience
    """After the prompts of its view."""
    terms: Sequence[StepTerm]
    reads: Bool[Tensor, "B T"]
    """What these read."""
    moved: Moved | None
    as_written: bool = True


def passes(terms: Sequence[StepTerm], batch: Experience, row: Algorithm, *, measured: bool) -> Iterator[Pass]:
    """The passes of a step: one for each view of the prompts that its terms ask for.

    Without hints both views are one. How far the policy has moved is measured in one pass alone: that of the texts as
    they were written, where a term asks for it.

    Args:
        measured: whether it is measured though no term reads log-probabilities.
    """
    hints = batch.rollout.bare_ids is not None
    written = not hints or any(term.term.view is View.WRITTEN for term in terms)
    measured = measured or any(term.term.scores_tokens for term in terms)
    for view in (View.WRITTEN, View.PROMPT) if hints else (None,):
        episodes = batch.bare if view is View.PROMPT else batch
        there = [term for term in terms if view in (None, term.term.view)]
        # Not of terms that weigh nothing now: a micro-batch of theirs alone would have no gradient.
        reads = read_by_any((term.term for term in there), batch.rollout, row)
        moved = None
        if measured and (written == (view is not View.PROMPT)):
            moved = Moved.of(batch, reads, view)
        yield Pass(episodes, there, reads, moved, view is not View.PROMPT)


def with_beginning(
    experience: Experience, row: Algorithm, policy: LanguageModel, sampling: Sampling, max_tokens: int
) -> Experience:
    """The same, with the log-probabilities before the update also for texts that others wrote: ``max_update_kl``
    compares with them."""
    rollout, scored = experience.rollout, experience.scored
    others = rollout.authored & ~rollout.drawn
    of_policy = (t for t in row.terms.values() if not t.of_critic and t.on is not Span.REFERENCES)
    if scored.old_logprobs is not None or not (others & read_by_any(of_policy, rollout, row)).any():
        return experience
    with policy.running() as model:
        found = score_logprobs(model, rollout, sampling, policy.end_ids, max_tokens)
    old = torch.where(others, found, rollout.sampled_logprobs)
    return replace(experience, scored=replace(scored, old_logprobs=old))


@torch.no_grad()
def check_result(
    policy: LanguageModel,
    critics: Mapping[str, Critic],
    parameters: Mapping[str, Sequence[torch.nn.Parameter]],
    rollout: Rollout,
) -> None:
    """Make sure that what an update ends in can write and be saved: weights, and outputs for one text.

    Args:
        parameters: the trained ones, by the name of its model.
        rollout: the first of its texts is read.

    Raises:
        UserError: names the number that is not finite.
    """
    for name, trained in parameters.items():
        for parameter in trained:
            require_finite(f"the weights of the {name}", sharding.own_part(parameter))
    tokens = Tokens.of(rollout[torch.tensor([0])]).to(policy.model.device)
    shared = any(critic.reads_policy_hidden for critic in critics.values())
    with sharding.whole(policy.model, *critics.values()):
        logits, hidden = response_outputs(policy.model, tokens, hidden=shared)
        said = token_logprobs(logits, tokens.response_ids, Sampling(), ())
        require_finite("the trained policy's log-probabilities", said, tokens.response_mask)
        for name, critic in critics.items():
            require_finite(f"the values of the critic {name}", critic(tokens, hidden), tokens.response_mask)
