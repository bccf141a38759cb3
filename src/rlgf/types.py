"""The records that pass between the parts of the library.

Shapes use these letters throughout: ``B`` episodes, ``P`` prompt positions, ``T`` response
positions, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from rlgf.kept import KeptTokens


class Author(IntEnum):
    """Who wrote a token. ``NOBODY`` marks padding after the end of a response, ``PAST`` is the policy itself at an earlier
    visit of the prompt (`rlgf.rollout.record.PastText`)."""

    NOBODY = 0
    POLICY = 1
    GUIDE = 2
    REFERENCE = 3
    ENVIRONMENT = 4
    """Answers the turns of a dialogue; no loss reads it."""
    PAST = 5


@dataclass(frozen=True)
class Message:
    """One message of a chat."""

    role: str
    content: str


Messages = tuple[Message, ...]


@dataclass(frozen=True)
class Sample:
    """One row of a task: a prompt, the texts that continue it well, and any further columns."""

    prompt: str
    """A text; of a chat what the policy's template makes of `messages`, or empty, which leaves that to the run."""
    references: tuple[str, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    rejected: str | None = None
    """The text of a preference pair that is ranked below the reference."""
    cue: str = ""
    """The end of the prompt that asks for the response, such as "TL;DR:". Where it is set, a prompt that is
    too long loses the end of what stands before the cue; otherwise it loses its beginning."""
    messages: Messages = ()
    """The prompt of a chat, for all that read it through templates of their own; a last message of the assistant's
    is the beginning of its answer. Empty for a prompt that is a text."""


def columns_of(samples: Sequence[Sample]) -> dict[str, list[Any]]:
    """Further columns, one list entry per sample; None where a sample lacks one."""
    names = dict.fromkeys(name for sample in samples for name in sample.columns)
    return {name: [sample.columns.get(name) for sample in samples] for name in names}


@dataclass(frozen=True)
class Completion:
    """What an author wrote after a prefix.

    ``token_ids`` is set where the author shares the policy's tokenizer: the ids it sampled, its
    end-of-text token included. Other authors give text only.
    """

    text: str
    finished: bool
    """Whether the author ended the text itself rather than running into the length limit."""
    token_ids: tuple[int, ...] | None = None
    guide: str | None = None
    """Which guide wrote it, where there are several."""
    sampled: int | None = None
    """How many tokens its author sampled for it, in its own tokens; None where it does not say."""


@dataclass(frozen=True)
class Rollout:
    """B finished episodes: prompts padded on the left, responses on the right.

    ``author`` is written where the texts are spliced and is the only source of every mask and
    length: no mask is derived from token ids, so a pad token that is also the end-of-text token
    is harmless.
    """

    samples: tuple[Sample, ...]
    prompt_ids: Int[Tensor, "B P"]
    """What the responses were written after: the samples' prompts, in some episodes with a hint put into them."""
    prompt_mask: Bool[Tensor, "B P"]
    response_ids: Int[Tensor, "B T"]
    author: UInt8[Tensor, "B T"]
    sampled_logprobs: Float[Tensor, "B T"]
    """Of each token that the policy drew, under what it was drawn from, as the policy's own passes have it; else 0."""
    kept: tuple[KeptTokens | None, ...]
    """What top-k and top-p left to draw each policy token from; None for an episode of which they cut nothing."""
    finished: Bool[Tensor, "B"]
    """Whether the response ends in the end-of-text token, or an environment ended it, rather than at a limit."""
    group: Int[Tensor, "B"]
    """Episodes of one group share the prompt and the roll-in."""
    texts: tuple[str, ...]
    guides: tuple[str | None, ...]
    """Which guide wrote in an episode, where there are several."""
    altered: Bool[Tensor, "B"]
    """Whether the tokens spell another text than the author wrote, since the policy's tokenizer cannot spell that one."""
    engine_logprobs: Float[Tensor, "B T"] | None = None
    """The log-probabilities reported by a separate engine, or by earlier weights of the policy."""
    bare_ids: Int[Tensor, "B Q"] | None = None
    """The prompts without hints; None where the script has no hints."""
    bare_mask: Bool[Tensor, "B Q"] | None = None
    guide_ids: Int[Tensor, "B G"] | None = None
    """The prompts as the guide reads them that is learned from, where it alone reads hints."""
    guide_mask: Bool[Tensor, "B G"] | None = None
    hints: tuple[str | None, ...] | None = None
    """The hint of each episode, where the script has hints."""
    hint_taken: Int[Tensor, "B"] | None = None
    """Tokens of its author's text that each hint has, without the template's; None where the script has no hints."""
    hint_cut: Bool[Tensor, "B"] | None = None
    """Whether the prompt had no room for the whole hint, or for any of it."""
    index: Int[Tensor, "B"] | None = None
    """The place of each prompt in the training data; None for other samples."""
    help_limit: Int[Tensor, "B"] | None = None
    """How many tokens the text has, or may have, that a roll-in or a hint was drawn from; 0 where none was drawn."""
    examples: tuple[str, ...] | None = None
    """A text that the guide wrote for each prompt, where a reward is to learn from it; see `Algorithm.examples`."""
    own_rate: Float[Tensor, "B"] | None = None
    """The share of successes among the texts that a group wrote without help first, where that opened a gate; else -1."""
    start_values: Float[Tensor, "B"] | None = None
    """Of each prompt, where the row reads one; see `Algorithm.start_value`."""
    branch_values: Float[Tensor, "B T"] | None = None
    """What texts that branch off before a token earn in the mean; NaN where none do, None where the row has no branches."""
    dialogues: tuple[Messages, ...] | None = None
    """The turns of each episode, the assistant's, and the replies to them, the user's; None without an environment."""

    def __len__(self) -> int:
        return self.response_ids.shape[0]

    @property
    def response_mask(self) -> Bool[Tensor, "B T"]:
        return self.author != Author.NOBODY

    @property
    def authored(self) -> Bool[Tensor, "B T"]:
        """The tokens of the response that an author chose: all but the environment's."""
        return self.response_mask & (self.author != Author.ENVIRONMENT)

    @property
    def lengths(self) -> Int[Tensor, "B"]:
        """Number of response tokens, the end-of-text token included."""
        return self.response_mask.sum(dim=1)

    def written_by(self, author: Author) -> Bool[Tensor, "B T"]:
        return self.author == author

    @property
    def drawn(self) -> Bool[Tensor, "B T"]:
        """The tokens that the policy drew, now or at an earlier visit, with known log-probabilities."""
        return self.written_by(Author.POLICY) | self.written_by(Author.PAST)

    @property
    def hinted(self) -> Bool[Tensor, "B"]:
        """Which episodes were written after a hint."""
        if self.bare_ids is None:
            return torch.zeros(len(self), dtype=torch.bool)
        return torch.tensor([hint is not None for hint in self.hints or (None,) * len(self)])

    @property
    def hint_tokens(self) -> Int[Tensor, "B"]:
        """How many tokens its hint, with the template, adds to each episode's prompt."""
        return self.prompt_mask.sum(dim=1) - self.bare.prompt_mask.sum(dim=1)

    @property
    def bare(self) -> Rollout:
        """The same responses after the prompts without hints; what they were sampled with stays as it was."""
        if self.bare_ids is None or self.bare_mask is None:
            return self
        return replace(self, prompt_ids=self.bare_ids, prompt_mask=self.bare_mask)

    @property
    def told(self) -> Rollout:
        """The same responses after the prompts as the guide reads them that is learned from."""
        if self.guide_ids is None or self.guide_mask is None:
            return self
        return replace(self, prompt_ids=self.guide_ids, prompt_mask=self.guide_mask)

    @property
    def prompt_tokens(self) -> Int[Tensor, "B"]:
        """How many tokens each prompt has, as that one reads it who reads most."""
        return torch.maximum(self.prompt_mask.sum(dim=1), self.told.prompt_mask.sum(dim=1))

    @property
    def prompts(self) -> list[str]:
        return [sample.prompt for sample in self.samples]

    @property
    def messages(self) -> list[Messages]:
        return [sample.messages for sample in self.samples]

    @property
    def references(self) -> list[tuple[str, ...]]:
        return [sample.references for sample in self.samples]

    @property
    def columns(self) -> dict[str, list[Any]]:
        """Further columns of the samples, one list entry per episode; None where a sample lacks one."""
        return columns_of(self.samples)

    def __getitem__(self, rows: Int[Tensor, "N"]) -> Rollout:
        return take(self, rows)


@dataclass(frozen=True)
class Scored:
    """A rollout with the scores of each episode by itself. All tensors are detached; None is what the algorithm
    does not ask for."""

    rollout: Rollout
    rewards: Float[Tensor, "B"] | None = None
    """What the reward function said of each finished text, before it is normalized and clipped."""
    reward_terms: Mapping[str, Float[Tensor, "B"]] = field(default_factory=dict)
    """What each term of a composed reward said, without its weight; NaN where it does not apply."""
    logged: Mapping[str, Float[Tensor, "B"]] = field(default_factory=dict)
    """What the reward logged beside its numbers, the same for all episodes that it scored together."""
    reference_logprobs: Float[Tensor, "B T"] | None = None
    unhinted_reference_logprobs: Float[Tensor, "B T"] | None = None
    """The same after the prompts without hints, where a term compares with it."""
    old_logprobs: Float[Tensor, "B T"] | None = None
    """Of each token under the policy before the update, where a loss reads that of more than is in the rollout."""
    values: Float[Tensor, "B T"] | None = None
    """The critic's, of the state before each token."""
    chunks: Int[Tensor, "B T"] | None = None
    """Which chunk of its text each token belongs to, see `alignment.chunks`: from 1 on, 0 for none."""
    guide_logprobs: Float[Tensor, "B T"] | None = None
    """What a guide that scores texts says of the chunk that each token belongs to; 0 where it belongs to none."""

    def __len__(self) -> int:
        return len(self.rollout)

    def __getitem__(self, rows: Int[Tensor, "N"]) -> Scored:
        return take(self, rows)


@dataclass(frozen=True)
class Experience:
    """The input of learning: scored episodes, and what comparing them with one another says. None is what the
    algorithm does not have."""

    scored: Scored
    token_rewards: Float[Tensor, "B T"] | None = None
    """The scaled reward at the last token, less the KL penalty at each policy token, where it belongs in the rewards."""
    advantages: Float[Tensor, "B T"] | None = None
    returns: Float[Tensor, "B T"] | None = None
    gae_lambda: float | None = None
    """The lambda that they were estimated with."""
    pairs: Int[Tensor, "N 2"] | None = None
    """Episodes that are set against each other, the better one first; the others are not learned from."""
    difference: Float[Tensor, "N"] | None = None
    """How much better the first of each pair is."""
    importance: Float[Tensor, "B T"] | None = None
    """A factor of the advantages where others than the policy as it is sampled for it, see `importance_weights`."""
    kl_coefficient: float = 0.0

    @property
    def rollout(self) -> Rollout:
        return self.scored.rollout

    @property
    def old_logprobs(self) -> Float[Tensor, "B T"]:
        """Of each token under the policy before the update; 0 at what others wrote, unless a loss reads that."""
        known = self.scored.old_logprobs
        return self.rollout.sampled_logprobs if known is None else known

    @property
    def bare(self) -> Experience:
        """The same episodes after their prompts without hints, see `Rollout.bare`."""
        reference = self.scored.unhinted_reference_logprobs
        scored = replace(self.scored, rollout=self.rollout.bare, reference_logprobs=reference)
        return self if self.rollout.bare_ids is None else replace(self, scored=scored)

    @property
    def units(self) -> Int[Tensor, "N K"]:
        """Episodes that must stay in one micro-batch: the members of each pair, else each by itself."""
        return torch.arange(len(self))[:, None] if self.pairs is None else self.pairs

    def __len__(self) -> int:
        return len(self.scored)

    def take_units(self, chosen: Int[Tensor, "M"]) -> Experience:
        """The episodes of some of the `units`, unit after unit."""
        picked = take(replace(self, pairs=None, difference=None), self.units[chosen].flatten())
        if self.pairs is None or self.difference is None:
            return picked
        together = torch.arange(len(picked)).view(-1, 2)
        return replace(picked, pairs=together, difference=self.difference[chosen])


Record = TypeVar("Record", Rollout, Scored, Experience)


def take(record: Record, rows: Int[Tensor, "N"]) -> Record:
    """The given rows of a record, in the given order."""
    index = rows.tolist()

    def pick(value: Any) -> Any:
        if isinstance(value, Tensor | Rollout | Scored):
            return value[rows]
        if isinstance(value, Sequence):
            return tuple(value[i] for i in index)
        if isinstance(value, Mapping):
            return {name: entry[rows] for name, entry in value.items()}
        return value

    picked = {f.name: pick(getattr(record, f.name)) for f in fields(record)}
    return replace(record, **picked)


def pad(rows: Sequence[Tensor], value: float | int, *, left: bool = False) -> Tensor:
    """Stack one-dimensional tensors of unequal length into one (B, longest) tensor."""
    return torch.nn.utils.rnn.pad_sequence(
        list(rows), batch_first=True, padding_value=value, padding_side="left" if left else "right"
    )


def padded(
    rows: Sequence[Sequence[int] | Tensor], filling: int, *, left: bool = False
) -> tuple[Int[Tensor, "N L"], Bool[Tensor, "N L"]]:
    """Token ids as `pad` stacks them, and where they stand."""
    ids = [torch.as_tensor(row, dtype=torch.long) for row in rows]
    there = [torch.ones_like(row, dtype=torch.bool) for row in ids]
    return pad(ids, filling, left=left), pad(there, False, left=left)
