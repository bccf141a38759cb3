"""What the numbers of a run say is going wrong, and what to try. Pure functions of the metrics so far.

Each check takes what was logged so far and returns a sentence, or None where nothing is wrong. Its name in
`CHECKS` is the anchor of docs/warnings.md that says more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlgf.terminal import number


class History:
    """The log of updates and validations so far, as in ``metrics.jsonl``, by the name of the metric."""

    def __init__(self) -> None:
        self.updates = 0
        self.row = ""
        """The algorithm of the last update."""
        self._values: dict[tuple[str, str | None], list[float]] = {}

    def add(self, line: Mapping[str, Any]) -> None:
        rows: tuple[str | None, ...] = (None,)
        if "algorithm" in line:
            self.updates += 1
            self.row = str(line["algorithm"])
            rows = (None, self.row)
        for name, value in line.items():
            if name.endswith("/discriminator_loss"):
                name = "discriminator_loss"  # of a term of a composed reward
            if isinstance(value, int | float):
                for row in rows:
                    self._values.setdefault((name, row), []).append(float(value))

    def series(self, name: str, row: str | None = None) -> Sequence[float]:
        """The values of a metric, in order; where ``row`` is given, of updates that ran this algorithm alone."""
        return self._values.get((name, row), [])


Check = Callable[[History], str | None]

PATIENCE = 10
"""Updates that a number has to stand still for, before that means anything."""
_SHORT = 5


@dataclass(frozen=True)
class Found:
    """One thing that is wrong."""

    name: str
    update: int
    """The first update that shows it."""
    sentence: str

    def __str__(self) -> str:
        return f"{self.sentence} See docs/warnings.md#{self.name}."


def _at_least(limit: float, name: str, history: History) -> float | None:
    """The smallest of a metric's last values; None where there are too few of them, or one is below the limit."""
    last = history.series(name)[-_SHORT:]
    return min(last) if len(last) == _SHORT and min(last) >= limit else None


def reward_flat(history: History) -> str | None:
    """The last updates all earned the same, and none has ever earned less."""
    rewards = history.series("reward")
    if len(rewards) < PATIENCE or max(rewards[-PATIENCE:]) > min(rewards):
        return None
    return (
        f"The reward has stood at its lowest, {number(rewards[-1], 3)}, for {PATIENCE} updates, so there is nothing to learn "
        "from: let a guide or the data begin the texts, start nearer to the goal, or pay for steps on the way."
    )


def kl_growing(history: History) -> str | None:
    """The KL to the start is large and has more than doubled within a few updates, and no reward was gained by it."""
    kl, rewards = (history.series(name) for name in ("kl", "reward"))
    if len(kl) <= _SHORT or kl[-1] < 1 or kl[-1] < 2 * kl[-1 - _SHORT]:
        return None
    # A policy that learns much moves far from its start, and a higher reward is worth that.
    if rewards and (len(rewards) <= _SHORT or sum(rewards[-_SHORT:]) > sum(rewards[:_SHORT])):
        return None
    gained = f", and the reward is no higher than in the first {_SHORT}" if rewards else ""
    return (
        f"The KL to the start has grown from {kl[-1 - _SHORT]:.2g} to {kl[-1]:.2g} nats per token in {_SHORT} updates{gained}: "
        "read the samples, and raise 'algorithm.kl.coefficient' or lower 'update.learning_rate'."
    )


def entropy_collapsed(history: History) -> str | None:
    """The entropy is a small part of what it was at first."""
    entropy = history.series("entropy", history.row)
    if len(entropy) <= _SHORT or entropy[0] <= 0 or entropy[-1] > 0.1 * entropy[0]:
        return None
    return (
        f"The entropy has fallen from {entropy[0]:.2g} to {entropy[-1]:.2g} nats per token, so the policy explores "
        "little: lower 'update.learning_rate', raise 'algorithm.kl.coefficient', or add an entropy term."
    )


def groups_alike(history: History) -> str | None:
    """In almost every group all members earn the same, so that their advantages are 0."""
    alike = _at_least(0.9, "groups_alike", history)
    if alike is None:
        return None
    share = "all groups" if alike == 1 else f"at least {alike:.0%} of the groups"
    return (
        f"In {share} of the last {_SHORT} updates all members earned the same, which "
        "teaches nothing: take prompts that are neither too easy nor too hard, larger groups, or help where a group fails."
    )


def critic_blind(history: History) -> str | None:
    """The critic foresees nothing of the returns, long after it began to learn."""
    explained = history.series("explained_variance")
    if len(explained) < 2 * PATIENCE or max(explained[-PATIENCE:]) > 0.05:
        return None
    return (
        f"The critic has explained at most {max(0.0, *explained[-PATIENCE:]):.0%} of the returns' variance for {PATIENCE} "
        "updates: raise 'update.critic_learning_rate' or the weight of the value term, or take an algorithm without a critic."
    )


def discriminator_blind(history: History) -> str | None:
    """The reward that learns has never told the texts apart, so that what it pays is noise."""
    losses = history.series("discriminator_loss")
    if len(losses) < PATIENCE or min(losses) < math.log(2) - 0.01:
        return None
    return (
        f"In {len(losses)} updates the discriminator has not told the policy's texts from the given ones, so what it pays is "
        "noise: raise its option 'learning_rate' or 'epochs'."
    )


def ratio_off(history: History) -> str | None:
    """Before the first step of an update the policy is not the one that wrote the texts."""
    gone = history.series("first_step_kl")
    if not gone or gone[-1] < 1e-3:
        return None
    return (
        f"Before its first step an update found the policy {gone[-1]:.2g} nats per token from the one that wrote its "
        "texts, so that ratios do not begin at 1: train without half precision, and in a loop of your own learn from "
        "texts before the policy changes."
    )


def length_drifting(history: History) -> str | None:
    """Texts have become twice as long as at first, or half as long."""
    # The rows of a mixture write texts of other lengths.
    lengths = history.series("response_tokens", history.row)
    if len(lengths) < 2 * _SHORT:
        return None
    first, last = (sum(part) / _SHORT for part in (lengths[:_SHORT], lengths[-_SHORT:]))
    if abs(last - first) < 4 or 0.5 < last / first < 2:
        return None
    return (
        f"Texts had {number(first, 3)} tokens in the first {_SHORT} updates and have {number(last, 3)} in the last {_SHORT}: read the "
        "samples, and see whether the reward pays for length; a target length can be a term of it."
    )


def judge_falling(history: History) -> str | None:
    """The reward is at its highest, while another scorer of the same texts falls below where it began."""
    rewards, judged = (history.series(f"validation/{name}") for name in ("reward", "judge"))
    if len(judged) < 3 or len(rewards) != len(judged):
        return None
    if rewards[-1] < max(rewards) or rewards[-1] <= rewards[0]:
        return None
    if not judged[-1] < judged[-2] < judged[-3] or judged[-1] >= judged[0]:
        return None
    return (
        f"The validation reward has risen from {number(rewards[0], 3)} to {number(rewards[-1], 3)} while the judge fell from "
        f"{number(judged[0], 3)} to {number(judged[-1], 3)}, so the reward is being exploited: read the best samples, raise "
        "'algorithm.kl.coefficient', mend the reward, or keep an earlier checkpoint."
    )


def guide_silent(history: History) -> str | None:
    """Many of the guide's answers say nothing."""
    calls, cached, empty = (
        sum(history.series(f"guide_{name}")[-_SHORT:]) for name in ("calls", "cached", "empty")
    )
    answers = calls + cached  # an empty one is counted wherever it came from
    blank = _at_least(0.2, "guide_blank", history)
    if answers >= 20 and empty >= 0.2 * answers:
        said = f"{empty / answers:.0%} of the guide's last {answers:.0f} answers had no text"
    elif blank is not None:
        said = f"In each of the last {_SHORT} updates at least {blank:.0%} of the texts that the guide was to write had no text"
    else:
        return None
    return f"{said}: read its answers, and look at its prompt, its limit of tokens, and whether it thinks or refuses."


def guide_cut(history: History) -> str | None:
    """Many of the texts that the guide was to finish have no end."""
    cut = _at_least(0.5, "guide_cut", history)
    if cut is None:
        return None
    return (
        f"In each of the last {_SHORT} updates at least {cut:.0%} of the texts that the guide was to finish were cut "
        "at the limit, and have no end to learn from: raise 'rollout.max_response_tokens' or 'guide.token_ratio', or "
        "ask the guide to be brief."
    )


def hint_cut(history: History) -> str | None:
    """Many hints find no room in their prompts."""
    cut = _at_least(0.2, "hint_cut", history)
    if cut is None:
        return None
    return (
        f"In each of the last {_SHORT} updates at least {cut:.0%} of the hints were cut, or left out since their "
        "prompt was cut: raise 'rollout.max_hint_tokens' or 'rollout.max_prompt_tokens', or give shorter hints."
    )


def guide_improbable(history: History) -> str | None:
    """The policy would hardly write what the guide writes."""
    gap = _at_least(3.0, "guide_gap", history)
    if gap is None:
        return None
    return (
        f"A token of the guide's texts is {math.exp(gap):.0f} times less probable under the policy's start than one "
        "of its own, so that it has to go on from texts that it would never write: read the samples for a template, a "
        "language or spaces that are not the policy's, clone some of the guide's texts first, or take a closer guide."
    )


def budget_nearly_spent(guide: Mapping[str, Any]) -> Check:
    """``guide`` is the recipe's section, whose limits, or those of its guides, may be missing."""

    def check(history: History) -> str | None:
        for member, key, budget in _budgets(guide):
            # Of several servers each has sums of its own.
            sums = {
                name: sum(sum(history.series(f"guide_{part}{member}")) for part in parts)
                for name, parts in _SPENT.items()
            }
            for name, spent in sums.items():
                limit = budget.get(name)
                if limit and spent >= 0.9 * limit:
                    return (
                        f"{spent / limit:.0%} of '{key}.{name}' is spent after {history.updates} updates: raise it, or "
                        "let the help end sooner."
                    )
        return None

    return check


_SPENT = {"calls": ["calls"], "tokens": ["prompt_tokens", "completion_tokens"], "cost": ["cost"]}


def _budgets(
    guide: Mapping[str, Any], member: str = "", key: str = "guide"
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """What the metrics of each server end in, the key of its limits in the recipe, and the limits."""
    for name, one in guide.get("guides", {}).items():
        yield from _budgets(one, f"{member}/{name}", f"{key}.guides.{name}")
    if guide.get("budget"):
        yield member and f"{member}/{guide.get('model')}", f"{key}.budget", guide["budget"]


CHECKS: Mapping[str, Check] = {
    "reward-flat": reward_flat,
    "judge-falling": judge_falling,
    "ratio-off": ratio_off,
    "kl-growing": kl_growing,
    "entropy-collapsed": entropy_collapsed,
    "length-drifting": length_drifting,
    "groups-alike": groups_alike,
    "critic-blind": critic_blind,
    "discriminator-blind": discriminator_blind,
    "guide-silent": guide_silent,
    "guide-cut": guide_cut,
    "hint-cut": hint_cut,
    "guide-improbable": guide_improbable,
}


@dataclass
class Watch:
    """Says each thing once in a run."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """The run's, of which any section may be missing."""
    said: set[str] = field(default_factory=set)
    """The names of what has been said."""
    _history: History = field(default_factory=History)

    def look(self, lines: Iterable[Mapping[str, Any]]) -> list[Found]:
        """What further lines of the log show that has not been said yet. They are of updates, which name their algorithm, and
        of validations; others are passed over."""
        found = []
        for line in lines:
            if "algorithm" not in line and "validation/reward" not in line:
                continue
            self._history.add(line)
            for name, check in self._checks().items():
                sentence = None if name in self.said else check(self._history)
                if sentence is not None:
                    self.said.add(name)
                    found.append(Found(name, int(line.get("update", self._history.updates)), sentence))
        return found

    def _checks(self) -> dict[str, Check]:
        rollout = self.config.get("rollout") or {}
        checks = {**CHECKS, "budget-nearly-spent": budget_nearly_spent(self.config.get("guide") or {})}
        if rollout.get("min_response_tokens", 0) == rollout.get("max_response_tokens"):
            del checks["guide-cut"]  # texts of one length have no end, whoever writes them
        return checks
