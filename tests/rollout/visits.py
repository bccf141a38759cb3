"""Updates whose texts begin with somebody else's, and end at once where they are the policy's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from rlgf.algorithms import Algorithm
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.record import PromptRecord
from rlgf.rollout.writers import Draft, Passage
from rlgf.types import Author, Rollout, Sample
from toys import FavouringGuide

LIMIT = 12
SUCCESS = 0.5


class Ends:
    """A policy that ends every text at once, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def write(self, drafts: Sequence[Draft], limits: Sequence[int]) -> list[Passage]:
        self.asked += len(drafts)
        return [Passage([4], [-1.0], finished=True) for _ in drafts]


def collect(
    policy: LanguageModel,
    row: Algorithm,
    rewards: Callable[[Rollout], Tensor] | None = None,
    record: PromptRecord | None = None,
    *,
    reference: str = "d" * (LIMIT - 1),
    samples: int = 40,
    writer: Any = None,
) -> Rollout:
    config = RolloutConfig(max_prompt_tokens=4, max_response_tokens=LIMIT)
    maker = Collector(policy, FavouringGuide("d", 1.0), config, seed=0)
    maker.writers = {**maker.writers, Author.POLICY: writer or Ends()}
    asked = [Sample("ab", (reference,)) for _ in range(samples)]
    return maker.collect(asked, row, rewards=rewards, index=range(samples), record=record)


def begun(rollout: Rollout, row: Algorithm) -> list[int]:
    """How many tokens somebody else wrote, one entry for each text."""
    assert row.script.rollin is not None
    found: list[int] = rollout.written_by(row.script.rollin).sum(dim=1).tolist()
    return found


def longer_than(tokens: int) -> Callable[[Rollout], Tensor]:
    """Texts succeed after a beginning of so many tokens."""

    def rewards(rollout: Rollout) -> Tensor:
        helped = rollout.written_by(Author.GUIDE) | rollout.written_by(Author.REFERENCE)
        return (helped.sum(dim=1) >= tokens).float()

    return rewards
