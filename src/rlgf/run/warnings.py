"""What the numbers of a run say is going wrong, and what to try. Pure functions of the metrics so far.

Each check takes the lines of the updates so far, in order, and returns a sentence, or None where nothing is wrong. Its
name in `CHECKS` is the anchor of docs/warnings.md that says more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

History = Sequence[Mapping[str, Any]]
"""What was logged of each update, such as a line of ``metrics.jsonl``."""
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


def reward_flat(history: History) -> str | None:
    """The last updates all earned the same, and none has ever earned less."""
    rewards = _series(history, "reward")
    if len(rewards) < PATIENCE or max(rewards[-PATIENCE:]) > min(rewards):
        return None
    return (
        f"The reward has stood at its lowest, {rewards[-1]:.3g}, for {PATIENCE} updates, so there is nothing to learn "
        "from: let a guide or the data begin the texts, start nearer to the goal, or pay for steps on the way."
    )


def kl_growing(history: History) -> str | None:
    """The KL to the start is large and has more than doubled within a few updates."""
    kl = _series(history, "kl")
    if len(kl) <= _SHORT or kl[-1] < 0.5 or kl[-1] < 2 * kl[-1 - _SHORT]:
        return None
    return (
        f"The KL to the start has grown from {kl[-1 - _SHORT]:.2g} to {kl[-1]:.2g} nats per token in {_SHORT} updates: "
        "read the samples, and raise 'algorithm.kl.coefficient' or lower 'update.learning_rate'."
    )


def entropy_collapsed(history: History) -> str | None:
    """The entropy is a small part of what it was at first."""
    entropy = _series(history, "entropy")
    if len(entropy) <= _SHORT or entropy[-1] > 0.1 * entropy[0]:
        return None
    return (
        f"The entropy has fallen from {entropy[0]:.2g} to {entropy[-1]:.2g} nats per token, so the policy explores "
        "little: lower 'update.learning_rate', raise 'algorithm.kl.coefficient', or add an entropy term."
    )


def groups_alike(history: History) -> str | None:
    """In almost every group all members earn the same, so that their advantages are 0."""
    alike = _series(history, "groups_alike")[-_SHORT:]
    if len(alike) < _SHORT or min(alike) < 0.9:
        return None
    return (
        f"In at least {min(alike):.0%} of the groups of the last {_SHORT} updates all members earned the same, which "
        "teaches nothing: take prompts that are neither too easy nor too hard, larger groups, or help where a group fails."
    )


def critic_blind(history: History) -> str | None:
    """The critic foresees nothing of the returns, long after it began to learn."""
    explained = _series(history, "explained_variance")
    if len(explained) < 2 * PATIENCE or max(explained[-PATIENCE:]) > 0.05:
        return None
    return (
        f"The critic has explained at most {max(explained[-PATIENCE:]):.0%} of the returns' variance for {PATIENCE} "
        "updates: raise 'update.critic_learning_rate' or the weight of the value term, or take an algorithm without a critic."
    )


def guide_silent(history: History) -> str | None:
    """Many of the guide's new answers say nothing."""
    recent = history[-_SHORT:]
    calls = sum(_series(recent, "guide_calls"))
    empty = sum(_series(recent, "guide_empty"))
    if calls < 20 or empty < 0.2 * calls:
        return None
    return (
        f"{empty / calls:.0%} of the guide's last {calls:.0f} answers had no text: read its answers, and look at its "
        "prompt, its limit of tokens, and whether it thinks or refuses."
    )


def budget_nearly_spent(budget: Mapping[str, Any]) -> Check:
    """
    Args:
        budget: the limits of ``guide.budget``, each of which may be missing.
    """

    def check(history: History) -> str | None:
        sums = {name: sum(_series(history, f"guide_{name}")) for name in ("calls", "cost")}
        sums["tokens"] = sum(
            sum(_series(history, f"guide_{name}")) for name in ("prompt_tokens", "completion_tokens")
        )
        for name, spent in sums.items():
            limit = budget.get(name)
            if limit and spent >= 0.9 * limit:
                return (
                    f"{spent / limit:.0%} of 'guide.budget.{name}' is spent after {len(history)} updates: raise it, or "
                    "let the help end sooner."
                )
        return None

    return check


CHECKS: Mapping[str, Check] = {
    "reward-flat": reward_flat,
    "kl-growing": kl_growing,
    "entropy-collapsed": entropy_collapsed,
    "groups-alike": groups_alike,
    "critic-blind": critic_blind,
    "guide-silent": guide_silent,
}


@dataclass
class Watch:
    """Says each thing once in a run."""

    budget: Mapping[str, Any] = field(default_factory=dict)
    _history: list[Mapping[str, Any]] = field(default_factory=list)
    _said: set[str] = field(default_factory=set)

    def look(self, lines: Iterable[Mapping[str, Any]]) -> list[Found]:
        """What further lines of the log show that has not been said yet; those of evaluations are passed over."""
        found = []
        for line in lines:
            if "algorithm" not in line:
                continue
            self._history.append(line)
            checks = {**CHECKS, "budget-nearly-spent": budget_nearly_spent(self.budget)}
            for name, check in checks.items():
                sentence = None if name in self._said else check(self._history)
                if sentence is not None:
                    self._said.add(name)
                    found.append(Found(name, int(line.get("update", len(self._history))), sentence))
        return found


def _series(history: History, name: str) -> list[float]:
    return [float(line[name]) for line in history if isinstance(line.get(name), int | float)]
