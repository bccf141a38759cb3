"""Algorithms whose texts are written after a hint."""

from __future__ import annotations

from rlgf.algorithms.hint import Hint, View
from rlgf.algorithms.script import Gate, Help, RollinLength, Script
from rlgf.algorithms.terms import Term
from rlgf.algorithms.unguided import GRPO
from rlgf.schedules import Schedule, constant
from rlgf.types import Author

HINTED_GRPO = GRPO.but(
    name="hinted-grpo",
    summary="Guide-GRPO: a group of which all fail is written again after the guide's hint, and learned from as "
    "an answer to the prompt without it",
    script=Script(hint=Hint(author=Author.GUIDE)),
    help=Help(probability=constant(1.0), success=0.5, gate=Gate()),
    terms={
        "policy": Term(loss="clipped_surrogate", view=View.PROMPT),
        "kl": Term(loss="kl", view=View.PROMPT),
    },
    equation=f"{GRPO.equation}, rho = pi(y_t | x, y_<t) / old(y_t | x, hint, y_<t)",
    paper="Nath et al., arXiv 2506.13923",
)
QUESTA = GRPO.but(
    name="questa",
    summary="GRPO after prompts with the first half of the reference in them, and a quarter later on",
    script=Script(hint=Hint(author=Author.REFERENCE, template="{prompt}\n\nHint: {hint}\n\n")),
    help=Help(
        probability=constant(1.0),
        length=RollinLength(
            low=Schedule(start=0.5, end=0.25, shape="step", over=0.5),
            high=Schedule(start=0.5, end=0.25, shape="step", over=0.5),
        ),
    ),
    paper="Li et al., arXiv 2507.13266",
)
POPE = GRPO.but(
    name="pope",
    summary="GRPO; of the prompts whose last visit had no success half are asked with the reference's beginning "
    "in them, to go on from",
    script=Script(hint=Hint(author=Author.REFERENCE, template="{prompt}\n\nGo on: {hint}\n\n")),
    help=Help(
        probability=constant(0.5),
        length=RollinLength(high=constant(0.5)),
        success=0.5,
        gate=Gate(looks_at="record"),
    ),
    paper="Qu et al., arXiv 2601.18779",
)
SAGE = GRPO.but(
    name="sage",
    summary="GRPO; a group of which all fail is written again after a hint that the policy made of the reference",
    script=Script(
        hint=Hint(
            author=Author.POLICY,
            ask="{prompt}\n\n{reference}\n\nA hint that does not give this away: ",
        )
    ),
    help=Help(probability=constant(1.0), success=0.5, gate=Gate()),
    paper="Liao et al., arXiv 2602.03143",
)
