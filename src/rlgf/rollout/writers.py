"""Those who can write a part of a response: the policy, a guide, the data set's own text, the policy's past."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from rlgf import seeding
from rlgf.guides.base import Guide, RecordedGuide, Request, completions_of
from rlgf.kept import KeptTokens
from rlgf.models.language_model import LanguageModel
from rlgf.models.samplers import Beginning, Sampler
from rlgf.models.sampling import Sampling
from rlgf.models.vocabulary import known
from rlgf.rollout.record import PromptHistory
from rlgf.types import Author, Completion, Messages, Sample


@dataclass(frozen=True)
class HintedPrompt:
    text: str
    """The hint."""
    sample: Sample
    """The sample with the hint in its prompt and its messages."""
    ids: list[int]
    """The tokens of that prompt."""
    bare_ids: list[int]
    """Those of the prompt without the hint."""
    taken: int = field(compare=False)
    """Tokens of its author's text that the hint has, without the template's."""


@dataclass
class Draft:
    """A response being written: one list entry per token."""

    sample: Sample
    prompt_ids: list[int]
    """What the response is written after, with the hint where its writer reads one."""
    seed: int
    """The seed of this episode alone; all that is drawn while it is written comes from it."""
    ids: list[int] = field(default_factory=list)
    authors: list[Author] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    kept: list[KeptTokens] = field(default_factory=list)
    """What truncated sampling left to draw from, at the policy's tokens alone."""
    finished: bool = False
    guide: str | None = None
    altered: bool = False
    hint: HintedPrompt | None = None
    hint_cut: bool = False
    """Whether there was no room for the whole hint, or for any of it."""
    index: int | None = None
    """The place of its prompt in the training data."""
    history: PromptHistory = PromptHistory()
    """What the run remembers of its prompt."""
    help_limit: int = 0
    """Tokens of the text that its roll-in is drawn from; 0 where it has none."""
    own_rate: float = -1.0
    """See `Rollout.own_rate`."""
    dialogue: Messages = ()
    """The turns that have ended and the replies to them."""
    replied: list[int] = field(default_factory=list)
    """How many tokens there were after each reply."""
    over: bool = False
    """Whether nothing more is to be written of a dialogue."""
    asked: Sample | None = None
    """In a chat: the sample with the dialogue so far in its messages."""

    @property
    def told(self) -> Sample:
        """The sample as the writer of the response reads it."""
        if self.asked is not None:
            return self.asked
        return self.sample if self.hint is None else self.hint.sample

    @property
    def turn_seed(self) -> int:
        """The seed of the turn under way. With the same seed in each turn an author would repeat itself."""
        return seeding.derive(self.seed, "turn", len(self.replied)) if self.replied else self.seed

    @property
    def told_tokens(self) -> int:
        """How many tokens of the response stand in `told` already."""
        return 0 if self.asked is None else self.replied[-1]

    def branch(self, seed: int) -> Draft:
        """A copy with another seed: the same text so far, another way on."""
        return replace(
            self,
            seed=seed,
            ids=list(self.ids),
            authors=list(self.authors),
            logprobs=list(self.logprobs),
            kept=list(self.kept),
            replied=list(self.replied),
        )

    def add(self, author: Author, part: Passage) -> None:
        self.ids += part.ids
        self.authors += [author] * len(part.ids)
        self.logprobs += part.logprobs
        self.kept += [part.kept] if part.kept is not None else []
        self.finished = part.finished
        self.guide = part.guide or self.guide
        self.altered |= part.altered

    def cut(self, length: int) -> None:
        """Take back what another than the policy wrote after the first ``length`` tokens."""
        if length < len(self.ids):
            for tokens in (self.ids, self.authors, self.logprobs):
                del tokens[length:]
            self.finished = False


@dataclass(frozen=True)
class Passage:
    """What an author adds to a draft, in tokens of the policy."""

    ids: list[int]
    logprobs: list[float]
    finished: bool
    guide: str | None = None
    altered: bool = False
    """Whether the tokens spell another text than the author wrote."""
    kept: KeptTokens | None = None
    """What each token was drawn from, where truncated sampling cut something off."""
    sampled: int | None = None
    """How many tokens the author sampled for it, in its own tokens and with those that were cut off;
    None: those of its ``ids`` that are used and no others."""

    @property
    def booked(self) -> int:
        """How many tokens its author is booked."""
        return len(self.ids) if self.sampled is None else self.sampled


@runtime_checkable
class Writer(Protocol):
    """Continues drafts, each by at most as many tokens of the policy as its limit says (1 or more)."""

    def write(self, drafts: Sequence[Draft], limits: Sequence[int]) -> list[Passage]: ...


@runtime_checkable
class ForeseeingWriter(Writer, Protocol):
    """A writer whose texts can be there before it is asked for them."""

    def lengths(self, drafts: Sequence[Draft], limits: Sequence[int]) -> list[int | None]:
        """How many tokens `write` would add to each draft, the end included; None where nobody knows yet."""


class PolicyWriter:
    """The live policy, with the log-probabilities of what it samples."""

    def __init__(self, sampler: Sampler, sampling: Sampling) -> None:
        self.sampler = sampler
        self.sampling = sampling

    def write(self, drafts: Sequence[Draft], limits: Sequence[int]) -> list[Passage]:
        beginnings = [
            Beginning(draft.prompt_ids, draft.ids, limit, draft.turn_seed, position=len(draft.ids))
            for draft, limit in zip(drafts, limits, strict=True)
        ]
        written = self.sampler.write(beginnings, self.sampling, keep_sets=True)
        return [
            Passage(
                one.token_ids.tolist(),
                one.logprobs.tolist(),
                one.finished,
                kept=one.kept,
                sampled=len(one.token_ids),
            )
            for one in written
        ]


class GuideWriter:
    """A guide; its text becomes tokens of the policy here, once."""

    def __init__(self, guide: Guide, policy: LanguageModel) -> None:
        self.guide = guide
        self.policy = policy

    def write(self, drafts: Sequence[Draft], limits: Sequence[int]) -> list[Passage]:
        requests = self.requests(drafts, limits)
        completions = completions_of(self.guide, requests)
        parts = []
        for draft, completion, limit, recorded in zip(
            drafts, completions, limits, self._recorded(requests), strict=True
        ):
            part = self._spliced(draft, completion, limit)
            # Of a text that is at hand no more is taken than is used.
            parts.append(part if recorded is None else replace(part, sampled=None))
        return parts

    def lengths(self, drafts: Sequence[Draft], limits: Sequence[int]) -> list[int | None]:
        """See `ForeseeingWriter.lengths`; what a guide has yet to write has no length."""
        recorded = self._recorded(self.requests(drafts, limits))
        return [
            None if completion is None else len(self._spliced(draft, completion, limit).ids)
            for draft, completion, limit in zip(drafts, recorded, limits, strict=True)
        ]

    def _spliced(self, draft: Draft, completion: Completion, limit: int) -> Passage:
        return splice(self.policy, completion, limit, self.policy.context(draft.prompt_ids, draft.ids))

    def _recorded(self, requests: Sequence[Request]) -> list[Completion | None]:
        if isinstance(self.guide, RecordedGuide):
            return self.guide.recorded(requests)
        return [None] * len(requests)

    def requests(self, drafts: Sequence[Draft], limits: Sequence[int]) -> list[Request]:
        """What `write` asks the guide."""
        texts = [
            self.policy.decode(
                d.ids[d.told_tokens :], self.policy.context(d.prompt_ids, d.ids[: d.told_tokens])
            )
            for d in drafts
        ]
        return [
            Request(
                # The prompt's own text, not its tokens decoded: those may have lost its beginning. Of a
                # character that is written in half there is no text to go on from.
                prefix=draft.told.prompt + written.rstrip("\ufffd"),
                max_new_tokens=limit,
                seed=seeding.derive(draft.turn_seed, "guide"),
                episode=seeding.derive(draft.seed, "guide"),
                prompt_ids=tuple(draft.prompt_ids),
                written_ids=tuple(draft.ids),
                told_tokens=draft.told_tokens,
                prompt_length=len(draft.told.prompt),
                messages=draft.told.messages,
                sample=draft.sample,
            )
            for draft, limit, written in zip(drafts, limits, texts, strict=True)
        ]


class ReferenceWriter:
    """The data set's own text: token for token what stands after the draft's prompt."""

    def __init__(self, policy: LanguageModel) -> None:
        self.policy = policy

    def write(self, drafts: Sequence[Draft], limits: Sequence[int]) -> list[Passage]:
        parts = []
        for draft, limit in zip(drafts, limits, strict=True):
            references = draft.sample.references
            pick = seeding.derive(draft.seed, "reference") % len(references)
            reference = Completion(references[pick], finished=True)
            before = self.policy.context(draft.prompt_ids)
            whole = splice(self.policy, reference, len(draft.ids) + limit, before)
            rest = whole.ids[len(draft.ids) :]
            # A draft longer than the reference gets nothing more, not even the end.
            parts.append(Passage(rest, [0.0] * len(rest), whole.finished and bool(rest)))
        return parts

    def lengths(self, drafts: Sequence[Draft], limits: Sequence[int]) -> list[int | None]:
        return [len(part.ids) for part in self.write(drafts, limits)]


class PastWriter:
    """The policy's earlier success at a draft's prompt, from the record; nothing where there is none."""

    def __init__(self, policy: LanguageModel) -> None:
        self.policy = policy

    def write(self, drafts: Sequence[Draft], limits: Sequence[int]) -> list[Passage]:
        return [self._taken(draft, limit) for draft, limit in zip(drafts, limits, strict=True)]

    def lengths(self, drafts: Sequence[Draft], limits: Sequence[int]) -> list[int | None]:
        return [len(part.ids) for part in self.write(drafts, limits)]

    def _taken(self, draft: Draft, limit: int) -> Passage:
        past = draft.history.past
        if past is None:
            return Passage([], [], finished=False, sampled=0)
        ids = list(past.ids[:limit])
        finished = ids[-1] in self.policy.end_ids
        return Passage(ids, list(past.logprobs[:limit]), finished, sampled=0)


def prompt_tokens(policy: LanguageModel, sample: Sample, limit: int) -> list[int]:
    """A sample's prompt as at most ``limit`` tokens of the policy; see `LanguageModel.encode_prompt`."""
    return policy.encode_prompt(sample.prompt, limit, sample.cue)


def splice(policy: LanguageModel, completion: Completion, limit: int, before: Sequence[int] = ()) -> Passage:
    """A completion as at most ``limit`` tokens of the policy, the one that ends a text included.

    The continuation is tokenized apart from what stands before it, so the ids before it never
    change; a text cut by its author's limit loses a half-written character. An empty text is one
    that ends here, whatever its author says, since nothing can follow it.

    What ends its author's text becomes the policy's end; and where a token that ends the policy's texts stands in
    the completion, as a token or written out, the completion ends there.

    Args:
        before: tokens that the completion follows, see `LanguageModel.context`.

    Raises:
        UserError: the policy does not have one of the completion's tokens.
    """
    ends, altered, finished, sampled = set(policy.end_ids), False, completion.finished, 0
    if completion.token_ids is not None:
        ids = known(completion.token_ids, policy.tokenizer)
        if finished and ids and ids[-1] not in ends:
            ids[-1] = policy.end_id
    else:
        text = policy.until_end(completion.text)
        ids, altered = policy.continuation(text.rstrip("\ufffd"), before)
        sampled = len(policy.encode(completion.text[len(text) :]))
        if finished or text != completion.text:
            ids.append(policy.end_id)
    ids = ids or [policy.end_id]
    sampled += len(ids)
    end = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    ids = ids[: min(end + 1, limit)]
    return Passage(
        ids,
        [0.0] * len(ids),
        ids[-1] in ends,
        completion.guide,
        altered,
        sampled=sampled if completion.sampled is None else completion.sampled,
    )
