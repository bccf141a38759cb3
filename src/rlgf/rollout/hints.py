"""Hints in prompts: which episodes get one, where its text comes from, and what the prompt then is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from rlgf import seeding
from rlgf.algorithms import Algorithm, Hint
from rlgf.algorithms.script import Tier, filled
from rlgf.chat import ChatTemplate
from rlgf.errors import UserError
from rlgf.models.language_model import LanguageModel
from rlgf.models.text import Codec
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.help import draw_switches
from rlgf.rollout.writers import Draft, HintedPrompt, Passage, splice
from rlgf.types import Author, Completion, Message, Sample

Write = Callable[[Author, Sequence[Draft], Sequence[int]], Sequence[Passage]]
"""Lets an author continue drafts, each by at most so many tokens, and books what is sampled."""


@dataclass(frozen=True)
class HintGiver:
    """Puts hints into the prompts of drafts."""

    policy: LanguageModel
    config: RolloutConfig

    @cached_property
    def template(self) -> ChatTemplate:
        """The policy's own, by which a chat with a hint becomes a prompt again."""
        return ChatTemplate(self.policy.tokenizer, "the policy", "leave 'script.hint' out")

    def give(
        self,
        drafts: Sequence[Draft],
        row: Algorithm,
        progress: float,
        write: Write,
        tier: Tier | None = None,
    ) -> None:
        """Put hints into the prompts of those drafts that the row's help chooses.

        The policy goes on from such a prompt, or only the guide reads it, as the hint says. A draft whose hint has no
        text, or whose prompt leaves no room for one, keeps its own prompt.

        Args:
            tier: which hint, of a row whose hints have tiers.

        Raises:
            UserError: the hint's template alone takes ``rollout.max_hint_tokens`` or more.
        """
        hint = row.script.hint
        assert hint is not None, "asked for where it is set"
        asked, amounts = self.asked(drafts, row, progress, tier)
        chosen = [(i, amount) for i, amount in enumerate(amounts) if amount > 0]
        if hint.author in (Author.GUIDE, Author.POLICY):
            wanted = [asked[i] for i, _ in chosen]
            parts = write(hint.author, wanted, [amount for _, amount in chosen]) if chosen else []
            found = [
                self.policy.decode(part.ids, self.policy.context(draft.prompt_ids))
                for draft, part in zip(wanted, parts, strict=True)
            ]
        else:
            found = [self.policy.decode(self._given(drafts[i], hint, tier)[:amount]) for i, amount in chosen]
        for (i, amount), text in zip(chosen, found, strict=True):
            put, cut = self._fitted(drafts[i], hint, text.rstrip("\ufffd").strip(), amount)
            drafts[i].hint, drafts[i].hint_cut = put, cut
            if put is not None and row.script.hinted:
                drafts[i].prompt_ids = put.ids

    def asked(
        self, drafts: Sequence[Draft], row: Algorithm, progress: float, tier: Tier | None = None
    ) -> tuple[list[Draft], list[int]]:
        """For each draft, what the author of hints is asked to continue, and by how many tokens; 0 where there is no
        hint."""
        hint = row.script.hint
        assert hint is not None, "asked for where it is set"

        def lengths(chosen: Sequence[Draft]) -> list[int]:
            if hint.author in (Author.GUIDE, Author.POLICY):
                return [self.config.max_hint_tokens] * len(chosen)
            return [len(self._given(draft, hint, tier)) for draft in chosen]

        amounts = draw_switches(drafts, row, progress, lengths)
        if tier is not None:
            # A share such as 0.07 of 100 is 7, and not a rounding below it.
            parts = [max(1, math.floor(tier.share * draft.help_limit + 1e-6)) for draft in drafts]
            amounts = [part if amount else 0 for part, amount in zip(parts, amounts, strict=True)]
        return [self._asking(draft, hint) for draft in drafts], amounts

    def _asking(self, draft: Draft, hint: Hint) -> Draft:
        sample = draft.sample
        if hint.ask is not None:
            known = sample.references[0] if sample.references else ""
            if hint.author is Author.POLICY:
                known = self._known(sample, hint.ask, known)
            sample = _retold(sample, hint.ask, self.template, reference=known)
        ids = draft.prompt_ids if hint.ask is None else self._ids(sample)
        return Draft(sample, ids, seeding.derive(draft.seed, "hint"))

    def _known(self, sample: Sample, ask: str, reference: str) -> str:
        """As much of the reference as the policy has room for beside the problem and what it is asked."""
        asked, ids = _retold(sample, ask, self.template, reference=""), self.policy.encode(reference)
        room = max(self._limit - len(self.policy.codec.encode_prompt(asked.prompt)), 0)
        return reference if len(ids) <= room else self._text(ids[:room])

    def _given(self, draft: Draft, hint: Hint, tier: Tier | None) -> list[int]:
        """The tokens of a text that is there already, with its end."""
        if hint.author is Author.PAST:
            return [] if draft.history.past is None else list(draft.history.past.ids)
        column = hint.column if tier is None else tier.column
        if column is not None:
            value = draft.sample.columns.get(column)
            text = "" if value is None else str(value)
        else:
            references = draft.sample.references
            text = references[seeding.derive(draft.seed, "hint") % len(references)]
        whole = splice(self.policy, Completion(text, finished=True), 2**62)
        return whole.ids if text else []

    def _fitted(self, draft: Draft, hint: Hint, text: str, amount: int) -> tuple[HintedPrompt | None, bool]:
        """The prompt with as much of a hint of ``amount`` tokens as there is room for, and whether the hint is cut.

        The prompt is None where there is no room. It is also None where the bare prompt is too long and is cut: with a
        hint it would be cut elsewhere.
        """
        sample = draft.sample
        bare, room = room_for_hint(
            sample, hint, self.policy.codec, self.template, self.config.max_hint_tokens
        )
        ids = self.policy.encode(text)
        room = room if bare <= self.config.max_prompt_tokens else 0
        text = self._text(ids[:room])
        if not text:
            return None, len(ids) > room
        told = _retold(sample, hint.template, self.template, hint=text)
        taken = amount if len(ids) <= room else min(room, amount)
        return HintedPrompt(text, told, self._ids(told), draft.prompt_ids, taken), len(ids) > room

    def _ids(self, sample: Sample) -> list[int]:
        return self.policy.encode_prompt(sample.prompt, self._limit, sample.cue)

    @property
    def _limit(self) -> int:
        """The most tokens that a prompt has with a hint in it, or that a question for a hint has."""
        return self.config.max_prompt_tokens + self.config.max_hint_tokens

    def _text(self, ids: list[int]) -> str:
        """The text of some tokens, without half a character at its end."""
        return self.policy.decode(ids).rstrip("\ufffd")


def room_for_hint(sample: Sample, hint: Hint, codec: Codec, chat: ChatTemplate, most: int) -> tuple[int, int]:
    """How many tokens a sample's prompt has, and how many a hint may have of the ``most`` that it may add with its template.

    Raises:
        UserError: the template alone takes them all.
    """
    bare = len(codec.encode_prompt(sample.prompt))
    taken = len(codec.encode_prompt(_retold(sample, hint.template, chat, hint="").prompt)) - bare
    if taken >= most:
        raise UserError(
            f"the template of hints takes {taken} tokens, and 'rollout.max_hint_tokens' {most} leave no room for a hint: "
            "raise it."
        )
    return bare, most - taken


def _retold(sample: Sample, template: str, chat: ChatTemplate, **parts: str) -> Sample:
    """A sample whose prompt stands in a template; of a chat, the user's last message does."""
    places = [i for i, message in enumerate(sample.messages) if message.role == "user"]
    if places and chat.there and chat.prompt(sample.messages, sample.columns) == sample.prompt:
        messages = list(sample.messages)
        content = filled(template, prompt=messages[places[-1]].content, **parts)
        messages[places[-1]] = Message("user", content)
        prompt = chat.prompt(tuple(messages), sample.columns)
        return replace(sample, messages=tuple(messages), prompt=prompt)
    body = sample.prompt.removesuffix(sample.cue) if sample.cue else sample.prompt
    return replace(sample, prompt=filled(template, prompt=body, **parts) + sample.cue, messages=())
