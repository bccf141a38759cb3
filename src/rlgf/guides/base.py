"""A guide is anything that continues a text."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from rlgf.chat import parted
from rlgf.errors import UserError
from rlgf.identity import LATER
from rlgf.jsontext import is_unicode
from rlgf.models.forward import Tokens
from rlgf.models.language_model import LanguageModel
from rlgf.objectives.alignment import Piece
from rlgf.strict import Strict
from rlgf.types import Completion, Messages, Sample


@dataclass(frozen=True)
class Request:
    """One text to continue, or one to score.

    The seed belongs to the request, not to the call: an answer depends on its own request alone,
    however requests are batched or timed.
    """

    prefix: str
    """The prompt and what has been written after it so far."""
    max_new_tokens: int
    """In tokens of the policy: write at least that much text, the rest is cut."""
    seed: int
    prompt_ids: tuple[int, ...] | None = None
    """The prompt as tokens of the policy, for a guide that shares its tokenizer."""
    written_ids: tuple[int, ...] = ()
    """And what has been written after it."""
    prompt_length: int | None = None
    """Characters of the prefix that are the prompt; None where that is all of it."""
    messages: Messages = ()
    """The messages of a chat; empty for a text. The policy's chat template makes the prompt of them, and a guide may use a
    template of its own, or none. `written` stands in the assistant's turn."""
    sample: Sample | None = field(default=None, compare=False, repr=False)
    """The task's sample that the prompt comes from, for a guide that reads its references or columns."""
    scored: str | None = None
    """A text that follows the prefix, whose probability is asked for; None where the prefix is to be continued."""
    scored_ids: tuple[int, ...] = ()
    """The same as tokens of the policy, with those that add no text."""
    scores_end: bool = False
    """Whether the probability that the text ends there is asked for too."""
    episode: int | None = field(default=None, compare=False)
    """A seed that all requests of one dialogue share; None where a request stands for itself."""
    told_tokens: int = field(default=0, compare=False)
    """How many of `written_ids` are in `messages` already, as turns of a dialogue that are over."""

    @property
    def prompt(self) -> str:
        return self.prefix[: self.prompt_length]

    @property
    def written(self) -> str:
        """What there is of the response so far; in a dialogue of a chat, of the turn under way."""
        return self.prefix[len(self.prompt) :]

    @property
    def response(self) -> str:
        """All that there is of the response so far, with the turns and replies of a dialogue."""
        asked, begun = parted(() if self.sample is None else self.sample.messages)
        said = "".join(message.content for message in self.messages[len(asked) :])
        # What the prompt has of the first turn is no part of the response.
        return said[len(begun) :] + self.written


@runtime_checkable
class Guide(Protocol):
    """A black box that continues texts. To bring your own, write a class with this method."""

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion a request, in the same order."""


def require_write(guide: Guide, name: str) -> None:
    """
    Raises:
        UserError: a guide's `write` cannot be called with requests, or would have to be awaited.
    """
    if inspect.iscoroutinefunction(guide.write):
        raise UserError(
            f"{name} has an async 'write', and nobody awaits it: make it a plain method, which may call asyncio.run."
        )
    try:
        inspect.signature(guide.write).bind([])
    except TypeError as error:
        raise UserError(
            f"{name} has a 'write' that cannot be called as write(requests) ({error})."
        ) from error
    except ValueError:  # compiled, and says nothing about what it takes
        return


def completions_of(guide: Guide, requests: Sequence[Request]) -> list[Completion]:
    """What a guide writes, checked to be one text for each request.

    Raises:
        UserError: it returned something else.
    """
    found: Any = guide.write(requests)
    name = f"the guide '{type(guide).__name__}'"
    if not isinstance(found, list | tuple) or len(found) != len(requests):
        returned = f"{len(found)} values" if isinstance(found, list | tuple) else f"{found!r:.60}"
        raise UserError(
            f"{name} returned {returned} for {len(requests)} requests: write(requests) must return a list with one "
            "rlgf.Completion for each."
        )
    for one in found:
        if not isinstance(one, Completion) or not isinstance(one.text, str):
            raise UserError(
                f"{name} must return an rlgf.Completion with a text for each request (one is {one!r:.60})."
            )
        if not is_unicode(one.text):
            raise UserError(
                f"{name} wrote half of a surrogate pair, which is not a character: put U+FFFD in its place."
            )
    return list(found)


@runtime_checkable
class FollowingGuide(Guide, Protocol):
    """A guide with weights of its own that follow those of the policy."""

    def follow(self) -> None:
        """An update has moved the policy."""

    @property
    def moving(self) -> Sequence[Tensor]:
        """Those weights, always in the same order: a checkpoint keeps them."""


@runtime_checkable
class ScoringGuide(Guide, Protocol):
    """A guide that also says how probable each token would be: what distillation learns from.

    One whose texts end in other tokens than the policy's says so with an attribute ``end_ids``, the tokens that end
    its texts; the probabilities of ending are then compared, whichever token ends a text.
    """

    def log_distribution(self, tokens: Tokens) -> Float[Tensor, "B T V"]:
        """The guide's log-probabilities over the policy's vocabulary before each response token.

        Entry ``[:, t]`` is the distribution after the prompt and ``t`` response tokens, at the
        guide's temperature and without top-k and top-p: a token that the policy draws and the guide
        never would has no finite divergence. Entries after the policy's vocabulary are not read, and
        those at padding may hold any number.

        Args:
            tokens: prompts and responses in tokens of the policy.

        Returns:
            (B, T, V) without a graph, on the device of ``tokens``.
        """


@runtime_checkable
class TextScoringGuide(Guide, Protocol):
    """A guide that says how probable a given text is, in tokens of its own: what a server can say, too."""

    def score(self, requests: Sequence[Request]) -> list[list[Piece]]:
        """The tokens that the guide cuts each request's `scored` into, in order and without gaps.

        Each has its log-probability after the prefix and all tokens before it, without top-k and top-p. A token that
        begins in the prefix is left out, and so are tokens that do not fit into the guide's context. Where the request
        has `scores_end` and the guide can say it, the last piece is the end of the text and has no characters.
        """


@runtime_checkable
class RecordedGuide(Guide, Protocol):
    """A guide whose texts are written down already, so that their lengths are known before it is asked."""

    def recorded(self, requests: Sequence[Request]) -> list[Completion | None]:
        """The whole text that answers each request, whatever its limit; None where it has yet to be written."""


@dataclass
class Usage:
    """What a guide has answered and what it was paid for, since the run began."""

    calls: int = 0
    """Answers that had to be asked for."""
    cached: int = 0
    """Answers that were there already."""
    retries: int = 0
    """Attempts that failed and were made again."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    """In the currency of the recipe's prices."""
    empty: int = 0
    """Answers without text, refusals among them."""
    refused: int = 0
    thought_only: int = 0
    """Answers that hold a model's thinking alone."""
    mended: int = 0
    """Answers with half a character in them, which was replaced."""
    waited_seconds: float = 0.0
    """How long training stood still for answers."""
    busy_seconds: float = 0.0
    """How long at least one request was under way."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(*map(operator.add, vars(self).values(), vars(other).values()))

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*map(operator.sub, vars(self).values(), vars(other).values()))

    def __mul__(self, times: int) -> Usage:
        return Usage(*(times * value for value in vars(self).values()))


@runtime_checkable
class RemoteGuide(Guide, Protocol):
    """A guide that can be asked ahead and that keeps account of what it is asked, within limits that the processes of a
    run keep together."""

    @property
    def accounts(self) -> Mapping[str, Usage]:
        """What has been asked so far, by the name of who was asked."""

    def restore(self, accounts: Mapping[str, Usage]) -> None:
        """Go on from the accounts of a checkpoint, so that a budget is one of the whole run."""

    def prefetch(self, requests: Sequence[Request]) -> None:
        """Ask now for what `write` will be asked for soon; returns at once."""

    def affords(self, requests: Sequence[Request]) -> bool:
        """Whether its limits allow all of these, were none of them answered yet."""
        ...

    def wind_down(self, why: str) -> None:
        """Ask for nothing ahead any more: book the answers that came, and forget the rest, so that it can be asked anew."""
        ...

    def close(self) -> None:
        """Send nothing more; answers under way may come, since it is paid for."""

    @property
    def aside(self) -> Mapping[str, Usage]:
        """What requests under way may cost at most, by the name of who was asked."""

    def share_budget(self, asides: Sequence[Mapping[str, Usage]], place: int) -> None:
        """Leave the other processes their part of what the limits still allow, until this is called again.

        Args:
            asides: the `aside` of every process.
            place: which of them is this one.
        """


class BudgetSpentError(UserError):
    """The guide's budget does not allow what the next update would ask for."""

    def __init__(self, message: str, *, go_on: bool) -> None:
        super().__init__(message)
        self.go_on = go_on
        """Whether the recipe says to train on without the guide."""


class GuideSettings(Strict):
    """What a recipe says under ``guide:``, whichever kind of guide it is."""

    candidates: Annotated[int, LATER] = Field(default=1, ge=1)
    """How many texts it writes for each that training asks for; the reward picks the best, so they must be whole."""

    mark: ClassVar[str]
    """The key of a recipe that makes it this kind, see `rlgf.guides.config.KINDS`."""

    @property
    def members(self) -> list[GuideSettings]:
        """The guide itself, or those that it chooses among."""
        return [self]

    @property
    def label(self) -> str:
        """How tables and model cards name it."""
        return str(getattr(self, self.mark))

    @property
    def early(self) -> bool:
        """Whether it can be made, and asked, before the policy is loaded."""
        return all(member.early for member in self.members if member is not self)

    @property
    def may_score(self) -> bool:
        """Whether it has probabilities, as far as can be told before it is made."""
        return False

    @property
    def may_score_texts(self) -> bool:
        """Whether it says how probable a text is, as far as can be told before it is made."""
        return False

    def build(self, start: LanguageModel | None) -> Guide:
        """The guide.

        Args:
            start: the policy's frozen start, with the policy's tokenizer, or of a guide that follows the policy the
                policy itself; None before the policy is loaded, for kinds that are `early`.

        Raises:
            UserError: what it needs cannot be had.
        """
        raise NotImplementedError
