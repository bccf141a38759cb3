"""Algorithms whose guide reads more than the policy does, so that the policy can be its own."""

from __future__ import annotations

from rlgf.algorithms.hint import Hint, Reader
from rlgf.algorithms.script import Help, RollinLength, Script
from rlgf.algorithms.spec import Algorithm
from rlgf.algorithms.terms import Term
from rlgf.schedules import constant
from rlgf.types import Author

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
