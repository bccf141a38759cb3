"""What a run asks of a remote guide, update by update, and what it gets for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rlgf import distributed
from rlgf.config import Config
from rlgf.guides import EnsembleGuide, HTTPGuideConfig, RemoteGuide, Usage
from rlgf.guides.config import members

_SPENT = ("calls", "prompt_tokens", "completion_tokens", "cost")
"""What a budget limits."""


def budgets(config: Config) -> list[dict[str, Any]]:
    """What a recipe allows each of its guides."""
    return [server.budget.model_dump() for server in members(config.guide, HTTPGuideConfig)]


class GuideUsage:
    """The account of a run's guide; empty for guides that keep none.

    Each process asks on its own, and `settle` makes the account of each that of all. Limits hold for all processes
    together: what they still allow is dealt out evenly from one settling to the next.
    """

    def __init__(self, guide: RemoteGuide | None) -> None:
        self._guide = guide
        self._settled: dict[str, Usage] = {}
        self._kept: dict[str, Usage] = {}
        """What a checkpoint knows of."""
        self._seen = self._accounts

    def settle(self) -> None:
        """Bring every process's account up to that of the run; called by all of them at the same moment."""
        aside = self._guide.aside if self._guide is not None else {}
        every = distributed.gathered((_since(self._settled, self._accounts), aside))
        if self._guide is None or distributed.count() == 1:
            return
        for theirs, _ in every:
            self._settled = _sums(self._settled, theirs)
        self._guide.restore(_sums(self._settled))
        self._guide.share_budget([asides for _, asides in every], distributed.rank())

    @property
    def _accounts(self) -> dict[str, Usage]:
        """The guide's, as they are at this moment."""
        return _sums(self._guide.accounts) if self._guide is not None else {}

    @property
    def total(self) -> Usage:
        return sum(self._accounts.values(), Usage())

    def metrics(self) -> dict[str, float]:
        """The usage since the last call.

        ``guide_overlap`` is the share of the time with requests under way that training did not wait. Of several guides
        each server's calls, tokens and cost stand beside the sums, since each has a budget of its own.
        """
        if self._guide is None:
            return {}
        accounts = self._accounts
        each, self._seen = _since(self._seen, accounts), accounts
        new = sum(each.values(), Usage())
        found = {f"guide_{name}": float(value) for name, value in asdict(new).items()}
        if new.busy_seconds > 0:
            found["guide_overlap"] = max(0.0, 1.0 - new.waited_seconds / new.busy_seconds)
        for name, usage in each.items() if isinstance(self._guide, EnsembleGuide) else ():
            found |= {f"guide_{spent}/{name}": float(getattr(usage, spent)) for spent in _SPENT}
        return found

    def dump(self) -> dict[str, dict[str, Any]]:
        """For a checkpoint."""
        self._kept = self._accounts
        return {name: asdict(usage) for name, usage in self._kept.items()}

    def restore(self, accounts: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on from a checkpoint's account; what was asked since without a checkpoint, such as the trial before a run,
        is paid for too. Called by all processes at the same moment."""
        self.settle()
        if self._guide is not None:
            new = _since(self._kept, self._accounts)
            self._kept = {name: Usage(**usage) for name, usage in accounts.items()}
            self._settled = _sums(self._kept, new)
            self._guide.restore(_sums(self._settled))
            self._seen = self._accounts
        self.settle()

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


def _sums(*accounts: Mapping[str, Usage]) -> dict[str, Usage]:
    """The sum of several accounts, made of new objects."""
    names = dict.fromkeys(name for account in accounts for name in account)
    return {name: sum((account[name] for account in accounts if name in account), Usage()) for name in names}


def _since(before: Mapping[str, Usage], accounts: Mapping[str, Usage]) -> dict[str, Usage]:
    """How much accounts have grown since they were as ``before``."""
    return {name: usage - before.get(name, Usage()) for name, usage in accounts.items()}
