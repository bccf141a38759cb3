"""What a run asks of a remote guide, update by update, and what it gets for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from rlgf import distributed
from rlgf.guides import BudgetedGuide, RemoteGuide, Usage


class GuideUsage:
    """The account of a run's guide; empty for guides that keep none.

    Each process asks on its own, and `settle` makes the account of each that of all. Limits hold for all processes
    together: what they still allow is dealt out evenly from one settling to the next.
    """

    def __init__(self, guide: RemoteGuide | None) -> None:
        self._guide = guide
        self._settled: dict[str, Usage] = {}
        self._seen = self.total

    def settle(self) -> None:
        """Bring every process's account up to that of the run; called by all of them at the same moment."""
        aside = self._guide.aside if isinstance(self._guide, BudgetedGuide) else {}
        own = self._guide.accounts if self._guide is not None else {}
        new = {name: _less(usage, self._settled.get(name, Usage())) for name, usage in own.items()}
        every = distributed.gathered((new, aside))
        if self._guide is None or distributed.count() == 1:
            return
        for theirs, _ in every:
            for name, usage in theirs.items():
                self._settled[name] = self._settled.get(name, Usage()) + usage
        self._guide.restore({name: replace(usage) for name, usage in self._settled.items()})
        if isinstance(self._guide, BudgetedGuide):
            self._guide.share_budget([asides for _, asides in every], distributed.rank())

    @property
    def total(self) -> Usage:
        return sum(self._guide.accounts.values(), Usage()) if self._guide is not None else Usage()

    def metrics(self) -> dict[str, float]:
        """The usage since the last call.

        ``guide_overlap`` is the share of the time with requests under way that training did not wait.
        """
        if self._guide is None:
            return {}
        total, seen = self.total, self._seen
        self._seen = total
        new = _less(total, seen)
        found = {f"guide_{name}": float(value) for name, value in asdict(new).items()}
        if new.busy_seconds > 0:
            found["guide_overlap"] = max(0.0, 1.0 - new.waited_seconds / new.busy_seconds)
        return found

    def dump(self) -> dict[str, dict[str, Any]]:
        """For a checkpoint."""
        accounts = self._guide.accounts if self._guide is not None else {}
        return {name: asdict(usage) for name, usage in accounts.items()}

    def restore(self, accounts: Mapping[str, Mapping[str, Any]]) -> None:
        if self._guide is not None:
            self._settled = {name: Usage(**usage) for name, usage in accounts.items()}
            self._guide.restore({name: replace(usage) for name, usage in self._settled.items()})
            self._seen = self.total

    def summary(self, gained: float | None) -> dict[str, float]:
        """Totals, and calls, tokens and cost per point (0.01) of reward where the run gained any."""
        if self._guide is None:
            return {}
        total = {name: float(value) for name, value in asdict(self.total).items()}
        if gained is not None and gained > 0:
            tokens = total["prompt_tokens"] + total["completion_tokens"]
            for name, spent in (("calls", total["calls"]), ("tokens", tokens), ("cost", total["cost"])):
                total[f"{name}_per_reward_point"] = spent / (100 * gained)
        return total


def _less(usage: Usage, before: Usage) -> Usage:
    return Usage(*(getattr(usage, f.name) - getattr(before, f.name) for f in fields(Usage)))
