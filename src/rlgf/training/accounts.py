"""What a run asks of a remote guide, update by update, and what it gets for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from rlgf.guides import RemoteGuide, Usage


class Accounts:
    """The account of a run's guide; empty for guides that keep none."""

    def __init__(self, guide: RemoteGuide | None) -> None:
        self._guide = guide
        self._seen = self.total

    @property
    def total(self) -> Usage:
        return sum(self._guide.accounts.values(), Usage()) if self._guide is not None else Usage()

    def metrics(self) -> dict[str, float]:
        """What was added since the last call.

        ``guide_overlap`` is the share of the time with requests under way that training did not wait.
        """
        if self._guide is None:
            return {}
        total, seen = self.total, self._seen
        self._seen = total
        new = {f.name: getattr(total, f.name) - getattr(seen, f.name) for f in fields(Usage)}
        found = {f"guide_{name}": float(value) for name, value in new.items()}
        if new["busy_seconds"] > 0:
            found["guide_overlap"] = max(0.0, 1.0 - new["waited_seconds"] / new["busy_seconds"])
        return found

    def dump(self) -> dict[str, dict[str, Any]]:
        """For a checkpoint."""
        accounts = self._guide.accounts if self._guide is not None else {}
        return {name: asdict(usage) for name, usage in accounts.items()}

    def restore(self, accounts: Mapping[str, Mapping[str, Any]]) -> None:
        if self._guide is not None:
            self._guide.restore({name: Usage(**usage) for name, usage in accounts.items()})
            self._seen = self.total

    def summary(self, gained: float | None) -> dict[str, float]:
        """Totals, and calls, tokens and cost a point (0.01) of reward where the run gained any."""
        if self._guide is None:
            return {}
        total = {name: float(value) for name, value in asdict(self.total).items()}
        if gained is not None and gained > 0:
            tokens = total["prompt_tokens"] + total["completion_tokens"]
            for name, spent in (("calls", total["calls"]), ("tokens", tokens), ("cost", total["cost"])):
                total[f"{name}_per_reward_point"] = spent / (100 * gained)
        return total
