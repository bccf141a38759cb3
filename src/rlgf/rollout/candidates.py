"""Several texts of the guide's for one draft, of which the reward picks the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from rlgf import seeding
from rlgf.guides.base import Guide, Request
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.assembly import assemble
from rlgf.rollout.writers import Draft, GuideWriter, Passage, Writer
from rlgf.types import Author, Rollout

Rewards = Callable[[Rollout], Float[Tensor, "B"]]
"""Scores finished episodes."""


@dataclass(frozen=True)
class CandidateWriter:
    """A guide that is asked for several texts, each of which ends its draft; of equals the first is taken."""

    writer: GuideWriter
    number: int
    rewards: Rewards

    def write(self, drafts: Sequence[Draft], limits: Sequence[int]) -> list[Passage]:
        """The best of each draft's candidates; what all of them took is in its ``sampled``."""
        tried, each = self._tried(drafts, limits)
        parts = self.writer.write(tried, each)
        for draft, part in zip(tried, parts, strict=True):
            draft.add(Author.GUIDE, part)
        groups = [place // self.number for place in range(len(tried))]
        paid = self.rewards(assemble(tried, groups, self.writer.policy)).tolist()
        found = []
        for first in range(0, len(tried), self.number):
            places = range(first, first + self.number)
            best = parts[max(places, key=paid.__getitem__)]
            # Recorded texts cost nothing but the one that is used.
            spent = sum(parts[place].sampled or 0 for place in places)
            found.append(replace(best, sampled=spent + (len(best.ids) if best.sampled is None else 0)))
        return found

    def requests(self, drafts: Sequence[Draft], limits: Sequence[int]) -> list[Request]:
        """See `AskingWriter.requests`."""
        return self.writer.requests(*self._tried(drafts, limits))

    def _tried(self, drafts: Sequence[Draft], limits: Sequence[int]) -> tuple[list[Draft], list[int]]:
        tried = [draft.branch(seed) for draft in drafts for seed in candidate_seeds(draft.seed, self.number)]
        return tried, [limit for limit in limits for _ in range(self.number)]


def guide_writer(guide: Guide, policy: LanguageModel, candidates: int, rewards: Rewards | None) -> Writer:
    """Who writes for a guide.

    Args:
        candidates: how many texts it writes for each draft.
        rewards: pick one of several.
    """
    writer = GuideWriter(guide, policy)
    if candidates == 1:
        return writer
    assert rewards is not None, "several candidates come with what judges them"
    return CandidateWriter(writer, candidates, rewards)


def candidate_seeds(seed: int, number: int) -> list[int]:
    """Of a draft's candidates: the first one is what would be written if it were the only one."""
    return [seed, *(seeding.derive(seed, "candidate", place) for place in range(1, number))]
