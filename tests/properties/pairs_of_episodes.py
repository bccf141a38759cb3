"""Groups of the enumerated problem, and the pairs that are made of them."""

from __future__ import annotations

import itertools

import torch
from enumerated import POLICY, REFERENCE, RESPONSES, reward, rollout_of

from rlgf.algorithms import ALGORITHMS, Algorithm
from rlgf.learning.assessor import Assessor
from rlgf.models.sampling import Sampling
from rlgf.rollout.writers import Draft
from rlgf.types import Experience
from toys import table_language_model

KL = 0.3


def row(name: str) -> Algorithm:
    found = ALGORITHMS[name]
    assert isinstance(found, Algorithm)
    return found


def episodes(guided: bool) -> list[tuple[tuple[int, ...], int]]:
    """Pairs, one after the other, of texts of which the guide began none, or up to two letters."""
    switches = itertools.cycle([0, 2, 1, 0, 1] if guided else [0])
    return list(zip((*RESPONSES, *RESPONSES[::-1][5:], *RESPONSES[9:14]), switches, strict=False))[:54]


def assessed(found: Algorithm, drafts: list[Draft], kl: float = KL) -> Experience:
    groups = [i // 2 for i in range(len(drafts))]
    policy, reference = table_language_model(POLICY), table_language_model(REFERENCE)
    assessor = Assessor(policy, reference, {}, reward, Sampling(), 10**6)
    return assessor.assess(rollout_of(drafts, groups), found, kl)


def picked(experience: Experience) -> Experience:
    """All pairs, as one optimizer step has them."""
    return experience.take_units(torch.arange(len(experience.units)))
