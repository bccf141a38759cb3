"""Where roll-ins end in many episodes, and whether that is everywhere alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from scipy.stats import chisquare

from rlgf.algorithms import Algorithm
from rlgf.algorithms.spec import merged
from rlgf.guides import Guide
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.writers import Draft, Passage
from rlgf.types import Author, Rollout, Sample

SEEDS = 600
MANY = 2000
LIMIT = 12


class Ends:
    """A policy that ends every text at once: what it writes has no part in where roll-ins end."""

    def write(self, drafts: Sequence[Draft], limits: Sequence[int]) -> list[Passage]:
        return [Passage([4], [-1.0], finished=True) for _ in drafts]


def collect(
    policy: LanguageModel,
    row: Algorithm,
    texts: Sequence[str] = ("",),
    guide: Guide | None = None,
    *,
    group_size: int = 1,
    progress: float = 0.0,
    limit: int = LIMIT,
    samples: int = SEEDS,
    **options: Any,
) -> Rollout:
    """Groups as many as there are samples, whose references are the texts in turns."""
    config = RolloutConfig(max_prompt_tokens=4, max_response_tokens=limit, **options)
    maker = Collector(policy, guide, config, seed=0)
    if row.script.rollin is not Author.POLICY:
        maker.writers = {**maker.writers, Author.POLICY: Ends()}
    asked = [Sample("ab", (texts[i % len(texts)],)) for i in range(samples)]
    sized = row.model_copy(update={"group_size": group_size})
    return maker.collect(asked, sized, progress=progress)


def sure(row: Algorithm, **changes: Any) -> Algorithm:
    return row.changed(**merged({"help": {"probability": 1.0}}, changes))


def switches(rollout: Rollout, author: Author, group_size: int = 1) -> list[int]:
    """How many tokens each roll-in has, one entry for each group that shares it."""
    counts = rollout.written_by(author).sum(dim=1).view(-1, group_size)
    assert (counts == counts[:, :1]).all()
    return counts[:, 0].tolist()


def is_uniform(found: Sequence[int], first: int, last: int) -> None:
    """Nothing but first..last, and each as often as chance has it (chi-square, one false alarm in 10,000)."""
    counts = Counter(found)
    assert set(counts) == set(range(first, last + 1))
    assert first == last or chisquare([counts[h] for h in range(first, last + 1)]).pvalue > 1e-4
