"""Algorithms whose texts are written after a hint, or whose guide reads one."""

from __future__ import annotations

from rlgf.algorithms.hint import Hint, Reader, View
from rlgf.algorithms.script import Gate, Help, RollinLength, Script
from rlgf.algorithms.spec import Algorithm
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

# Hints in tiers: where a group fails, the next one is tried until texts succeed.
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

# The guide reads more than the policy does, so that the policy can be its own.
OPSD = Algorithm(
    name="opsd",
    summary="on-policy self-distillation: the probabilities of a guide that reads the reference solution at the states of "
    "the policy's own texts, no reward",
    script=Script(
        hint=Hint(author=Author.REFERENCE, template="{prompt}\n\nAnswer: {hint}\n\n", reader=Reader.GUIDE)
    ),
    help=Help(probability=constant(1.0), length=RollinLength(whole=True)),
    terms={"distill": Term(loss="distillation", options={"jsd_beta": 0.5})},
    equation="JSD_0.5(g, pi), g = guide(. | x, reference, y_<t), pi = pi(. | x, y_<t)",
    paper="Zhao et al., arXiv 2601.18734",
)
SDFT = OPSD.but(
    name="sdft",
    summary="self-distillation fine-tuning: as opsd, with the reference as an example, and towards the guide's "
    "likeliest texts",
    script=Script(
        hint=Hint(author=Author.REFERENCE, template="{prompt}\n\nExample: {hint}\n\n", reader=Reader.GUIDE)
    ),
    terms={"distill": Term(loss="distillation", options={"jsd_beta": 1.0})},
    equation="KL(pi || g), g = guide(. | x, reference, y_<t), pi = pi(. | x, y_<t)",
    paper="Shenfeld et al., arXiv 2601.19897",
)

ROWS = (HINTED_GRPO, QUESTA, POPE, SAGE, GHPO, SCAF_GRPO, OPSD, SDFT)
