"""What a run remembers of each prompt: how often it came, what it earned, and how much help it took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rlgf.algorithms import Algorithm, Help
from rlgf.types import Author, Scored


class Attempt(NamedTuple):
    """One text that was kept of a visit."""

    reward: float
    help: int = 0
    """Tokens of it that others than the policy wrote, or that a hint took from its author's text."""
    help_limit: int = 0
    """Tokens of the text that these were taken from; 0 where no help was drawn."""


class PastText(NamedTuple):
    """A text of the policy's that succeeded."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """One for each token, under the policy that drew it."""


class PromptHistory(NamedTuple):
    """One prompt's visits; a visit is an update that used it."""

    visits: int = 0
    texts: int = 0
    """Texts that were kept for it."""
    successes: int = 0
    """Those of them that earned `help.success` or more, with help or without."""
    rewards: float = 0.0
    """The sum of what they earned."""
    solved: bool = False
    """Whether a text without help has ever succeeded."""
    failures: int = 0
    """Visits without a success since the last one that had some."""
    rate: float | None = None
    """The share of successes at the last visit: of the texts without help, or of all where each had some."""
    help: float | None = None
    """How much of its author's text began the last text that succeeded, the least of a visit; 0 for none."""
    low: float | None = None
    """The longest beginning, as a share, that a search knows to be too short; None where it knows of none."""
    high: float | None = None
    """The shortest beginning that it knows to be long enough."""
    start_value: float | None = None
    """See `Algorithm.start_value`; None where no update has asked for it."""
    past: PastText | None = None
    """Kept for rows that begin texts with the policy's past: of the last visit at which texts that it wrote alone
    succeeded, the one that it was surest of; None for none."""

    @classmethod
    def of(cls, row: Sequence[Any]) -> PromptHistory:
        """From what JSON has made of one."""
        found = cls(*row)
        if found.past is None:
            return found
        ids, logprobs = found.past
        return found._replace(past=PastText(tuple(ids), tuple(logprobs)))

    def after(self, attempts: Sequence[Attempt], help: Help, own_rate: float | None = None) -> PromptHistory:
        """The history with one more visit.

        Args:
            own_rate: the share of successes among texts without help that were looked at first and not all kept.
        """
        won: list[bool] = succeeded(torch.tensor([one.reward for one in attempts]), help).tolist()
        alone = [success for success, one in zip(won, attempts, strict=True) if not one.help]
        if own_rate is None and alone:
            own_rate = sum(alone) / len(alone)
        rate = sum(won) / len(won) if own_rate is None else own_rate
        least = [
            one.help / one.help_limit if one.help else 0.0
            for success, one in zip(won, attempts, strict=True)
            if success
        ] + ([0.0] if own_rate else [])
        low, high = self.low, self.high
        if help.length.by == "record" and attempts[0].help_limit:
            low, high = self._searched(attempts[0], sum(won) / len(won) > help.length.enough)
        return PromptHistory(
            visits=self.visits + 1,
            texts=self.texts + len(attempts),
            successes=self.successes + sum(won),
            rewards=self.rewards + sum(one.reward for one in attempts),
            solved=self.solved or bool(own_rate),
            failures=0 if least else self.failures + 1,
            rate=rate,
            help=min(least) if least else self.help,
            low=low,
            high=high,
            start_value=self.start_value,
            past=self.past,
        )

    def _searched(self, attempt: Attempt, enough: bool) -> tuple[float | None, float | None]:
        """The bounds of the length after a beginning of ``attempt.help`` tokens was enough, or was not.

        A bound stays where the new one says less. Where nothing is left between the two bounds the older one goes: the
        policy has moved since it was found.
        """
        length, share = attempt.help_limit, attempt.help / attempt.help_limit
        low, high = self.low, self.high
        if enough:
            high = share if high is None else min(share, high)
        else:
            low = share if low is None else max(share, low)
        if low is not None and high is not None and not lengths_between(length, low, high):
            return (None, high) if enough else (low, None)
        return low, high


def lengths_between(length: int, low: float | None, high: float | None) -> range:
    """The numbers of tokens, out of 0..length - 1, between a share that is too short and one that is enough.

    Where 0 tokens are enough it is 0 alone, and where length - 1 are too few it is that alone. Between two neighbours
    there is none.
    """
    # A share is a number of tokens over the length, so a product with the length may be off by rounding.
    first = 0 if low is None else math.floor(low * length + 1e-6) + 1
    last = length - 1 if high is None else math.ceil(high * length - 1e-6) - 1
    return range(min(first, length - 1), max(min(last, length - 1), 0) + 1)


@dataclass(frozen=True)
class PromptRecord:
    """The history of every prompt that a run has used, by its place in the training data.

    It is the same in all processes, since each makes it from the episodes of all, and a part of a run's progress: a
    run that is resumed goes on with it. It never changes; `after` makes a new one.
    """

    rows: Mapping[int, PromptHistory] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Mapping[Any, Sequence[Any]]) -> PromptRecord:
        """From what JSON has made of ``rows``."""
        return cls({int(index): PromptHistory.of(row) for index, row in rows.items()})

    def __getitem__(self, index: int) -> PromptHistory:
        return self.rows.get(index, PromptHistory())

    @property
    def rates(self) -> dict[int, float]:
        """The share of successes at the last visit, of each prompt of which it is known."""
        return {index: row.rate for index, row in self.rows.items() if row.rate is not None}

    def after(self, scored: Scored, row: Algorithm) -> PromptRecord:
        """The record with one more visit of each prompt of an update, in the order of its groups.

        Of a row that does not say what a success is only the prompts' start values are kept, and nothing of samples
        that are not those of the training data.
        """
        rollout = scored.rollout
        rows = dict(self.rows)
        if rollout.start_values is not None and rollout.index is not None:
            valued = (rollout.group.tolist(), rollout.index.tolist(), rollout.start_values.tolist())
            # Where a prompt comes twice, its last group decides, whichever process that was written by.
            for _, place, value in sorted(zip(*valued, strict=True)):
                rows[place] = self[place]._replace(start_value=value)
        if row.help.success is None or scored.rewards is None or rollout.index is None:
            return PromptRecord(rows)
        begun = (rollout.authored & ~rollout.written_by(Author.POLICY)).sum(dim=1)
        given = begun if rollout.hint_taken is None else begun + rollout.hint_taken
        limits = given if rollout.help_limit is None else rollout.help_limit.maximum(given)
        columns = zip(scored.rewards.tolist(), given.tolist(), limits.tolist(), strict=True)
        visits: dict[int, list[Attempt]] = {}
        for group, text in zip(rollout.group.tolist(), columns, strict=True):
            visits.setdefault(group, []).append(Attempt(*text))
        places = dict(zip(rollout.group.tolist(), rollout.index.tolist(), strict=True))
        first = dict.fromkeys(visits, -1.0)
        if rollout.own_rate is not None:
            for group, rate in zip(rollout.group.tolist(), rollout.own_rate.tolist(), strict=True):
                first[group] = max(first[group], rate)
        for group, texts in sorted(visits.items()):
            history = rows.get(places[group], PromptHistory())
            own = first[group] if first[group] >= 0 else None
            rows[places[group]] = history.after(texts, row.help, own)
        if row.script.helper is Author.PAST:
            for group, past in sorted(_successes(scored, row.help).items()):
                rows[places[group]] = rows[places[group]]._replace(past=past)
        return PromptRecord(rows)

    def metrics(self) -> dict[str, float]:
        """For the log; empty where nothing was recorded.

        ``prompts_visited``, ``prompts_solved`` (the share of these that a text without help ever solved),
        ``prompts_stuck`` (the share whose last visit had no success) and ``prompts_help`` (the mean share of their
        author's text that began what last succeeded).
        """
        found = [row for row in self.rows.values() if row.visits]
        if not found:
            return {}
        helps = [row.help for row in found if row.help is not None]
        return {
            "prompts_visited": float(len(found)),
            "prompts_solved": sum(row.solved for row in found) / len(found),
            "prompts_stuck": sum(row.failures > 0 for row in found) / len(found),
            **({"prompts_help": sum(helps) / len(helps)} if helps else {}),
        }


def succeeded(rewards: Float[Tensor, "B"], help: Help) -> Bool[Tensor, "B"]:
    """Which texts earned `help.success` or more, both in single precision: a reward of 0.9 is a little less than 0.9."""
    assert help.success is not None, "asked where it says what a success is"
    return rewards.float() >= torch.tensor(help.success, dtype=torch.float32)


def _successes(scored: Scored, help: Help) -> dict[int, PastText]:
    """For each group, the success that the policy wrote alone and was surest of, by its mean log-probability."""
    rollout, rewards = scored.rollout, scored.rewards
    assert rewards is not None, "counted where texts are paid"
    alone = (rollout.written_by(Author.POLICY) | ~rollout.response_mask).all(dim=1)
    sure = rollout.sampled_logprobs.double().sum(dim=1) / rollout.lengths.clamp(min=1)
    found: dict[int, int] = {}
    for place in (alone & succeeded(rewards, help)).nonzero().flatten().tolist():
        group = int(rollout.group[place])
        if group not in found or sure[place] > sure[found[group]]:
            found[group] = place
    texts = {}
    for group, place in found.items():
        length = int(rollout.lengths[place])
        ids, logprobs = rollout.response_ids[place, :length], rollout.sampled_logprobs[place, :length]
        texts[group] = PastText(tuple(ids.tolist()), tuple(logprobs.tolist()))
    return texts
