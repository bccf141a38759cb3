"""Algorithms that begin texts with the data's references, or imitate these beside a reward."""

from __future__ import annotations

from rlgf.algorithms.base_rows import GRPO, PPO
from rlgf.algorithms.script import Gate, Help, RollinLength, Script, Span
from rlgf.algorithms.terms import Selection, Term
from rlgf.schedules import Schedule, constant
from rlgf.types import Author

DR_PO = PPO.but(
    name="dr-po",
    summary="data-set reset: PPO from states in the middle of the reference texts",
    script=Script(rollin=Author.REFERENCE),
    help=Help(probability=constant(1.0)),
    paper="Chang et al., arXiv 2404.08495",
)
REVERSE_CURRICULUM = DR_PO.but(
    name="reverse-curriculum",
    summary="PPO from near the end of the reference texts, then from ever earlier",
    help=Help(
        probability=constant(1.0),
        length=RollinLength(low=Schedule(start=0.9, end=0.0), high=Schedule(start=1.0, end=0.0)),
    ),
    paper="Xi et al., arXiv 2402.05808",
)
PREFIX_RL = GRPO.but(
    name="prefix-rl",
    summary="GRPO over prompts and prompts with the beginning of the reference, which is not learned from",
    script=Script(rollin=Author.REFERENCE),
    help=Help(probability=constant(0.5)),
    paper="Setlur et al., arXiv 2601.18795",
)
_FALLING = Schedule(start=0.95, end=0.0, shape="cosine", over=0.6)
UFT = GRPO.but(
    name="uft",
    summary="GRPO after the beginning of the reference, ever less of it and then none, and imitation of that "
    "beginning",
    script=Script(rollin=Author.REFERENCE),
    help=Help(probability=constant(1.0), length=RollinLength(low=_FALLING, high=_FALLING)),
    terms={
        "policy": Term(loss="clipped_surrogate"),
        "rollin": Term(loss="nll", on=Span.ROLLIN, weight=constant(0.001)),
        "kl": Term(loss="kl"),
    },
    equation=f"{GRPO.equation} over the policy's tokens, and b mean log pi over the reference's, b 0.001",
    paper="Liu et al., arXiv 2505.16984",
)
ADABACK = GRPO.but(
    name="adaback",
    summary="GRPO after the beginning of the reference, whose length is searched for each prompt over its visits",
    script=Script(rollin=Author.REFERENCE),
    help=Help(probability=constant(1.0), success=0.5, length=RollinLength(by="record", enough=0.5)),
    paper="Amani et al., arXiv 2506.18110",
)
HPT = GRPO.but(
    name="hpt",
    summary="GRPO where some of a group's texts succeed, and the NLL of the reference in place of a group that fails",
    script=Script(rollin=Author.REFERENCE),
    help=Help(
        probability=constant(1.0), length=RollinLength(whole=True), success=0.5, gate=Gate(), shared=False
    ),
    terms={
        "policy": Term(loss="clipped_surrogate"),
        "rollin": Term(loss="nll", on=Span.ROLLIN),
        "kl": Term(loss="kl"),
    },
    equation="GRPO's over groups with a success, -log pi(y_t | s_t) of the reference for the others",
    paper="Lv et al., arXiv 2509.04419",
)
_TO_LITTLE = Schedule(start=0.95, end=0.05, shape="cosine")
PREFIX_RFT = GRPO.but(
    name="prefix-rft",
    summary="GRPO over groups of which one text goes on from the reference's beginning, ever less of it, and "
    "learns from that too where the policy is in doubt",
    script=Script(rollin=Author.REFERENCE),
    help=Help(members=1, length=RollinLength(low=_TO_LITTLE, high=_TO_LITTLE), shared=False),
    terms={
        "policy": Term(loss="clipped_surrogate"),
        "rollin": Term(
            loss="policy_gradient",
            on=Span.ROLLIN,
            select=Selection(name="top_entropy", options={"share": 0.2}),
        ),
        "kl": Term(loss="kl"),
    },
    equation="GRPO's sum over the policy's tokens and that of A log pi over the fifth of the reference's at which "
    "the policy's entropy is highest, over the number of both",
    paper="Huang et al., arXiv 2507.01679",
)
CHORD = GRPO.but(
    name="chord",
    summary="GRPO, and imitation of the references where the policy neither knows a token nor excludes it",
    terms={
        "policy": Term(loss="clipped_surrogate", weight=constant(0.9)),
        "references": Term(
            loss="nll", on=Span.REFERENCES, weight=constant(0.1), select=Selection(name="uncertainty")
        ),
        "kl": Term(loss="kl"),
    },
    equation="(1 - mu) GRPO + mu mean of -phi(p_t) log p_t, p_t = pi(y*_t | s_t), phi(p) = p (1 - p), mu 0.1",
    paper="Zhang et al., arXiv 2508.11408",
)

ROWS = (DR_PO, REVERSE_CURRICULUM, PREFIX_RL, UFT, ADABACK, HPT, PREFIX_RFT, CHORD)
