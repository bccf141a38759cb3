"""Who writes a response, what they read beside the prompt, and how often and how far somebody else than its last author begins it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from rlgf.algorithms.functions import reads_past
from rlgf.schedules import Share, constant
from rlgf.strict import Strict
from rlgf.types import Author

_WRITERS = {one.name.lower(): one for one in (Author.POLICY, Author.GUIDE, Author.REFERENCE, Author.PAST)}


def _author(value: Any) -> Author:
    if isinstance(value, Author):
        return value
    if str(value).lower() not in _WRITERS:
        raise ValueError(f"it must be one of {', '.join(_WRITERS)}")
    return _WRITERS[str(value).lower()]


AuthorName = Annotated[
    Author, BeforeValidator(_author), PlainSerializer(lambda a: Author(a).name.lower(), return_type=str)
]


class View(StrEnum):
    """Which prompt the policy is scored after."""

    WRITTEN = "written"
    """The one after which the text was written: with its hint, where it had one."""
    PROMPT = "prompt"
    """The prompt as it stands in the data, without a hint."""


class Reader(StrEnum):
    """Who reads a prompt with its hint."""

    WRITER = "writer"
    """Who writes the response."""
    GUIDE = "guide"
    """The guide alone, for its probabilities of what the policy writes after the prompt without it."""


class Tier(NamedTuple):
    """One of several hints for a prompt, each more telling than the one before it."""

    column: str | None
    """The column that holds its text; None where an author writes it."""
    share: float
    """How much of the text it gives."""


class Hint(Strict):
    """A text that helps, put into the prompt of those episodes that `Help` chooses.

    `Help.length` says how much of it: the number of tokens is drawn as that of a roll-in, over the length of the text, or
    over ``rollout.max_hint_tokens`` where it is yet to be written.
    """

    author: AuthorName | None = None
    """Who writes it: the guide or the policy, when it is needed, or the data's reference; for a hint that the guide alone
    reads also ``past``, the policy's own last success for the prompt."""
    column: str | None = None
    """The column of the data that holds it, in place of an author."""
    columns: tuple[str, ...] = Field(default=(), exclude_if=lambda columns: not columns)
    """Several columns in place of one, from the least telling to the most; each is a tier."""
    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(), exclude_if=lambda shares: not shares
    )
    """Shares of the reference, or of each column, from the least to the most; each is a tier."""
    ask: str | None = None
    """What a guide or the policy is asked instead of the prompt, around ``{prompt}`` and, for an author who may know it,
    ``{reference}``. Without it a guide's hint is how the guide would begin to answer."""
    template: str = "Hint: {hint}\n\n{prompt}"
    """What the prompt becomes. Of a chat this is the user's last message; the cue of a sample stays at the end."""
    reader: Reader = Field(default=Reader.WRITER, exclude_if=lambda reader: reader is Reader.WRITER)
    """Who reads it: who writes the response, or the guide that the policy learns from and nobody else."""

    @model_validator(mode="after")
    def _coherent(self) -> Hint:
        if [self.author is not None, self.column is not None, bool(self.columns)].count(True) != 1:
            raise ValueError(
                "a hint has one origin: set either 'author' (guide, policy or reference) or 'column', or several 'columns'"
            )
        if self.shares and self.author in (Author.GUIDE, Author.POLICY):
            raise ValueError(
                "tiers are of a text that is there: leave 'shares' out, or set 'author: reference'"
            )
        if list(self.shares) != sorted(set(self.shares)):
            raise ValueError(
                f"its 'shares' {list(self.shares)} must rise, from the least telling to the most"
            )
        if any(part not in self.template for part in ("{hint}", "{prompt}")):
            raise ValueError("its 'template' must hold {hint} and {prompt}")
        if self.ask is not None and self.author not in (Author.GUIDE, Author.POLICY):
            raise ValueError(
                "nobody is asked for a text that is there: leave 'ask' out, or set 'author: guide'"
            )
        if self.ask is not None and "{prompt}" not in self.ask:
            raise ValueError("its 'ask' must hold {prompt}")
        if self.author is Author.POLICY and self.ask is None:
            raise ValueError(
                "the policy must be told to write a hint: set 'ask', such as 'Give a hint: {prompt}'"
            )
        return self

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """The hints that are tried one after another; empty where there is only one."""
        if not self.columns and not self.shares:
            return ()
        columns = self.columns or (self.column,)
        return tuple(Tier(column, share) for column in columns for share in self.shares or (1.0,))

    @property
    def named_columns(self) -> tuple[str, ...]:
        """The columns of the data that it is made from."""
        return self.columns if self.column is None else (self.column,)

    @property
    def reads_reference(self) -> bool:
        """Whether it is made from the sample's reference text."""
        return self.author is Author.REFERENCE or "{reference}" in (self.ask or "")


def filled(template: str, **parts: str) -> str:
    """A template with its parts in place; braces in the parts mean nothing."""
    return re.sub("|".join(f"{{{name}}}" for name in parts), lambda found: parts[found[0][1:-1]], template)


class Span(StrEnum):
    """The tokens that a loss term reads."""

    ROLLIN = "rollin"
    """Those before the switch."""
    ROLLOUT = "rollout"
    """Those after it."""
    WHOLE = "whole"
    """All of a response."""
    REFERENCES = "references"
    """The data's own texts for the same prompts, each from its first token."""


class Script(Strict):
    """Who writes which segment of a response: one author before the switch, one after it."""

    rollin: AuthorName | None = None
    """Who begins those texts that have a roll-in: the guide, the policy, the data's reference, or ``past``, the policy's
    own last success for the prompt."""
    rollout: AuthorName = Author.POLICY
    """Who writes on from there, or from the prompt where there is no roll-in."""
    hint: Hint | None = Field(default=None, exclude_if=lambda hint: hint is None)
    """What the roll-out's author reads beside the prompt, in the episodes that `Help` chooses."""

    @property
    def authors(self) -> set[Author]:
        return {self.rollout} | ({self.helper} if self.helper is not None else set())

    @property
    def hinted(self) -> bool:
        """Whether texts are written after hints."""
        return self.hint is not None and self.hint.reader is Reader.WRITER

    @property
    def guide_hinted(self) -> bool:
        """Whether the guide alone reads hints."""
        return self.hint is not None and self.hint.reader is Reader.GUIDE

    @property
    def helper(self) -> Author | None:
        """Who begins the texts or writes the hints."""
        return self.rollin if self.hint is None else self.hint.author

    def author(self, span: Span) -> Author:
        """Who writes the roll-in or the roll-out."""
        author = self.rollin if span is Span.ROLLIN else self.rollout
        assert author is not None, "checked when the row was made"
        return author


class RollinLength(Strict):
    """A roll-in's length is uniform between two shares of the length L of its author's text.

    ``h ~ Uniform{max(1, ceil(low * L)), ..., min(L - 1, floor(high * L))}``; the default is the
    paper's uniform law over 1..L-1 (arXiv 2306.11816). Where ``high * L`` is below 1 there is no roll-in.

    L counts the policy's tokens, with the end of the text and up to the response limit. Reference texts and
    recorded ones are known before the draw. Of a text that is yet to be written L is the limit, and where
    it then ends no later than h, h is drawn again over the length that it has.
    """

    low: Share = constant(0.0)
    high: Share = constant(1.0)
    whole: bool = False
    """The whole text up to its end, in place of a draw: nothing is written after it."""
    by: str = "law"
    """Who chooses between the two shares. ``law`` draws. ``record`` draws between the longest beginning that was too
    short for this prompt at earlier visits and the shortest that was long enough, none among them. ``trial`` halves
    what is left, within the update, for the shortest one that is long enough. ``difficulty`` takes the share of texts
    that failed as the share of the text. Or a rule of your own as `file.py:function`, see `rlgf.algorithms.functions`, for
    which the two shares mean nothing."""
    options: Mapping[str, Any] = Field(default={}, exclude_if=lambda options: not options)
    """Parameters of a rule of your own beyond what it reads."""
    enough: float = Field(default=0.0, ge=0, lt=1)
    """A beginning is long enough where more than this share of the texts after it succeed."""
    tries: int = Field(default=4, ge=1)
    """How many beginnings a trial may try."""

    @model_validator(mode="after")
    def _one_law(self) -> RollinLength:
        drawn = (self.low, self.high, self.by) != (constant(0.0), constant(1.0), "law")
        if self.whole and drawn:
            raise ValueError(
                "'whole' takes the text up to its end: leave 'low', 'high' and 'by' out, or set 'whole: false'"
            )
        for progress in (hundredth / 100 for hundredth in range(101)):
            low, high = self.low.at(progress), self.high.at(progress)
            if low > high + 1e-6:
                raise ValueError(
                    f"'low' {low:g} must not exceed 'high' {high:g}, as it does when {progress:.0%} of the run is over"
                )
        return self

    def positions(self, length: int, progress: float) -> range:
        """The numbers of tokens among which h is drawn, for a text of L tokens; empty where there are none."""
        # A share such as 0.07 of 100 is 7, and not a rounding above it.
        high = min(length - 1, math.floor(self.high.at(progress) * length + 1e-6))
        low = min(max(1, math.ceil(self.low.at(progress) * length - 1e-6)), high)
        return range(low, high + 1) if high > 0 else range(0)


class Gate(Strict):
    """Which prompts are helped: those of whose texts a share between two bounds succeeded."""

    looks_at: Literal["group", "record"] = "group"
    """``group``: at the group's own texts. They are written first, and where the gate opens those that are to have
    help are written again. ``record``: at the prompt's last visit; a prompt that comes for the first time has no help."""
    low: float = Field(default=0.0, ge=0, le=1)
    high: float = Field(default=0.0, ge=0, le=1)
    failures: int = Field(default=1, ge=1)
    """Of the record: how many visits in a row had no success, where `high` is 0."""

    @model_validator(mode="after")
    def _bounds(self) -> Gate:
        if self.low > self.high:
            raise ValueError(f"'low' {self.low:g} must not exceed 'high' {self.high:g}")
        if self.failures > 1 and (self.looks_at == "group" or self.high):
            raise ValueError(
                "'failures' counts visits without a success: set 'looks_at: record' and no 'high'"
            )
        return self

    def opens(self, rate: float | None, failures: int = 1) -> bool:
        """Whether to help.

        Args:
            rate: the share of successes; None where it is not known.
            failures: visits in a row without a success.
        """
        if rate is None or not self.low <= rate <= self.high:
            return False
        return self.high > 0 or failures >= self.failures


class Branches(Strict):
    """Further texts that the roll-out's author writes from states within each text, whose mean reward is the value of
    the state. Nothing else is learned from them."""

    every: int = Field(default=16, ge=1)
    """Tokens of the policy from one such state to the next; the first is where it begins to write. In a dialogue it
    counts turns, and states are where turns begin."""
    texts: int = Field(default=4, ge=1)
    """How many from each state."""


class StartValue(Strict):
    """How the value of a prompt is estimated at its first visit, see `rlgf.objectives.advantages.optimal_value`."""

    texts: int = Field(default=8, ge=1)
    """How many texts the start writes."""
    beta: float = Field(default=0.5, gt=0, allow_inf_nan=False)
    """The smaller, the nearer the value is to the best of what they earn; the larger, to the mean."""


class Help(Strict):
    """Which episodes have a roll-in or, where the script has one, a hint, and how long it is.

    All of it is decided before anything is written, except where a gate looks at a group's own texts first.
    """

    probability: Share = constant(0.0)
    """Of an episode to have a roll-in (the paper's beta)."""
    members: int | None = Field(default=None, ge=1)
    """Where set, exactly so many members of each group have a roll-in, and `probability` stays 0."""
    length: RollinLength = RollinLength()
    success: float | None = None
    """What a text has to earn to count as a success. Where set, the run keeps a record of each prompt."""
    gate: Gate | None = None
    """Which prompts are helped; all of them without one."""
    shared: bool = True
    """Whether the members of a group share one roll-in, or each draws its own."""

    @property
    def ever(self) -> bool:
        """Whether any episode may have a roll-in."""
        return self.members is not None or max(self.probability.start, self.probability.end) > 0

    @property
    def looks_first(self) -> bool:
        """Whether a group is written without help before it is known who gets some."""
        return self.gate is not None and self.gate.looks_at == "group"

    @property
    def foreseen(self) -> bool:
        """Whether help is known before the updates that come before it are over."""
        return self.gate is None and not reads_past(self.length.by)
