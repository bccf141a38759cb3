"""Hints: what an author reads beside the prompt, and the two views of a prompt that come of it."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

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
    """Who writes it: the guide or the policy, when it is needed, or the data's reference."""
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
