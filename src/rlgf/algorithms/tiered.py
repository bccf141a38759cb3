"""Algorithms whose hints come in tiers: where a group fails, the next one is tried until texts succeed."""

from __future__ import annotations

from rlgf.algorithms.hint import Hint
from rlgf.algorithms.script import Gate, Help, RollinLength, Script
from rlgf.algorithms.unguided import GRPO
from rlgf.schedules import constant
from rlgf.types import Author

_RATIO = "rho = pi(y_t | x, hint, y_<t) / old(y_t | x, hint, y_<t)"

GHPO = GRPO.but(
    name="ghpo",
    summary="GRPO; a group of which all fail is written again after a quarter of the reference, then after a half, "
    "then after three quarters, until some succeed",
    script=Script(
        hint=Hint(author=Author.REFERENCE, shares=(0.25, 0.5, 0.75), template="{prompt}\n\nHint: {hint}\n\n")
    ),
    help=Help(probability=constant(1.0), success=0.5, gate=Gate(), length=RollinLength(by="trial")),
    equation=f"{GRPO.equation}, {_RATIO}",
    paper="Liu et al., arXiv 2507.10628",
)
SCAF_GRPO = GHPO.but(
    name="scaf-grpo",
    summary="GRPO; of a group of which all fail one text is written again after hints that tell ever more, until it "
    "succeeds",
    script=Script(
        hint=Hint(
            author=Author.REFERENCE,
            shares=(0.25, 0.5, 0.75, 1.0),
            template="{prompt}\n\nHint: {hint}\n\n",
        )
    ),
    help=Help(members=1, shared=False, success=0.5, gate=Gate(), length=RollinLength(by="trial")),
    paper="Zhang et al., arXiv 2510.19807",
)
