"""Dialogues: an environment answers each turn of an author, until it says that the dialogue is over."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from rlgf.algorithms import Algorithm
from rlgf.chat import ChatTemplate, parted, row_options
from rlgf.environments import Environment, reply_to
from rlgf.environments.base import stop_of
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.help import drawn_again
from rlgf.rollout.writers import Draft, Passage
from rlgf.types import Author, Message


@dataclass(frozen=True)
class Dialogue:
    """The rules of a run's dialogues."""

    environment: Environment
    most_turns: int
    """A turn beyond these is not written."""
    policy: LanguageModel
    most_tokens: int
    """The limit of turns and replies together."""

    def hold(
        self,
        drafts: Sequence[Draft],
        turns: Sequence[int],
        write: Callable[[Sequence[Draft]], None],
    ) -> None:
        """Let an author write turns, each of which the environment answers.

        Args:
            turns: how many for each draft, at most.
            write: adds one turn to each of some drafts.
        """
        going = [(draft, left) for draft, left in zip(drafts, turns, strict=True) if left and not draft.over]
        while going:
            before = [len(draft.ids) for draft, _ in going]
            write([draft for draft, _ in going])
            going = [
                (draft, left - 1)
                for (draft, left), start in zip(going, before, strict=True)
                if self._goes_on(draft, start) and left > 1
            ]

    def begin(
        self,
        drafts: Sequence[Draft],
        turns: Sequence[int],
        row: Algorithm,
        progress: float,
        write: Callable[[Sequence[Draft]], None],
    ) -> None:
        """Let a roll-in's author write whole turns; another than the policy leaves one to who goes on, at least.

        Of a dialogue that is over by then, the number of turns is drawn again over those that it has.

        Args:
            turns: how many for each draft, see `draw_switches`.
            write: see `hold`.
        """
        self.hold(drafts, turns, write)
        for draft, drawn in zip(drafts, turns, strict=True):
            if drawn and draft.over and row.script.rollin is not Author.POLICY:
                self._cut(draft, drawn_again(draft, len(draft.replied) + 1, row, progress))
            # Elsewhere help is counted in tokens of a text that has so many at most.
            draft.help_limit = self.most_tokens if drawn else 0

    def rewind(self, draft: Draft, length: int) -> None:
        """Take back all after the first ``length`` tokens, where a turn begins."""
        self._cut(draft, sum(place <= length for place in draft.replied))

    def turn(self, draft: Draft, part: Passage) -> Passage:
        """The part of an author's text that is kept: all up to the text that ends a turn."""
        stop = stop_of(self.environment)
        before = self.policy.context(draft.prompt_ids, draft.ids)
        if not stop or stop not in self.policy.decode(part.ids, before):
            return part
        # What holds the stop holds it with more tokens too, so the first such length can be bisected for.
        lengths = range(1, len(part.ids) + 1)
        length = lengths[
            bisect_left(lengths, True, key=lambda n: stop in self.policy.decode(part.ids[:n], before))
        ]
        kept = None if part.kept is None else part.kept.take(torch.arange(length))
        ended = part.finished and length == len(part.ids)
        return replace(
            part, ids=part.ids[:length], logprobs=part.logprobs[:length], kept=kept, finished=ended
        )

    def _goes_on(self, draft: Draft, start: int) -> bool:
        """Book the turn that begins at a token, and let the environment answer it."""
        before = self.policy.context(draft.prompt_ids, draft.ids[:start])
        text = self.policy.decode(draft.ids[start:], before)
        stop = stop_of(self.environment)
        ended = draft.finished or (bool(stop) and stop in text)
        draft.dialogue += (Message("assistant", text),)
        draft.over = True
        if not ended or len(draft.replied) + 1 >= self.most_turns:
            return False
        reply = reply_to(self.environment, draft.sample, draft.dialogue)
        if reply is None:
            # Nothing cut it off, also where its last turn ends in what stops it.
            draft.finished = True
            return False
        ids = self._tokens(draft, reply)
        # An author needs room for one token at least.
        if len(draft.ids) + len(ids) >= self.most_tokens:
            return False
        draft.add(Author.ENVIRONMENT, Passage(ids, [0.0] * len(ids), finished=False))
        draft.dialogue += (Message("user", reply),)
        draft.replied.append(len(draft.ids))
        draft.over = False
        self._tell(draft)
        return True

    def _tokens(self, draft: Draft, reply: str) -> list[int]:
        """A reply in tokens of the policy; in a chat with what the template writes between two turns of the assistant."""
        before = self.policy.context(draft.prompt_ids, draft.ids)
        if not draft.sample.messages:
            return self.policy.continuation(reply, before)[0]
        asked, codec = parted(draft.sample.messages)[0], self.policy.codec
        options = row_options(draft.sample.columns)
        ids, _ = codec.continuation(self._template.between(asked, reply, options), before, prompt=True)
        if not draft.finished:
            return ids
        # Of a turn that its author ended, the end that the template writes is there already, where it writes one.
        ending, _ = codec.continuation(self._template.ending(asked, options), before, prompt=True)
        return ids[self._end(ids) :] if self._end(ending) else ids

    def _end(self, ids: Sequence[int]) -> int:
        """How many tokens there are up to the first one that ends a text, it included; 0 without one."""
        return next((n for n, token in enumerate(ids, start=1) if token in self.policy.end_ids), 0)

    def _tell(self, draft: Draft) -> None:
        """Put the dialogue so far into the messages of a chat."""
        draft.asked = None
        sample = draft.told
        if sample.messages and draft.dialogue:
            asked, begun = parted(sample.messages)
            first = Message("assistant", begun + draft.dialogue[0].content)
            messages = (*asked, first, *draft.dialogue[1:])
            prompt = self._template.prompt(messages, sample.columns)
            draft.asked = replace(sample, prompt=prompt, messages=messages)

    def _cut(self, draft: Draft, turns: int) -> None:
        """Take back all turns but the first ones, and the replies to them."""
        draft.cut(draft.replied[turns - 1] if turns else 0)
        del draft.replied[turns:]
        draft.dialogue = draft.dialogue[: 2 * turns]
        draft.over = False
        self._tell(draft)

    @property
    def _template(self) -> ChatTemplate:
        return ChatTemplate(self.policy.tokenizer, "the policy", "give prompts that are texts")
