"""Algorithms that imitate the guide, and need no reward."""

from __future__ import annotations

from rlgf.algorithms.base_rows import BC
from rlgf.algorithms.script import Help, Script
from rlgf.algorithms.spec import Algorithm
from rlgf.algorithms.terms import Term
from rlgf.schedules import constant
from rlgf.types import Author

SEQ_KD = BC.but(
    name="seq-kd",
    summary="sequence-level knowledge distillation: cloning of whole texts that the guide writes",
    script=Script(rollout=Author.GUIDE),
    paper="Kim and Rush, arXiv 1606.07947",
)
DAGGER = BC.but(
    name="dagger",
    summary="DAgger over texts: the policy begins, the guide finishes, and what the guide wrote is imitated",
    script=Script(rollin=Author.POLICY, rollout=Author.GUIDE),
    help=Help(probability=constant(0.8)),
    equation="-log pi(y_t | s_t) of the guide's tokens after s_h, which the policy reached",
    paper="Agrawal et al., arXiv 2606.05152; Ross et al., arXiv 1011.0686",
)
DISTILL = Algorithm(
    name="distill",
    summary="on-policy distillation: the guide's probabilities at the states of the policy's own texts, no reward",
    terms={"distill": Term(loss="distillation")},
    equation="JSD_beta(g, pi) = beta KL(g || m) + (1 - beta) KL(pi || m), m = beta g + (1 - beta) pi; "
    "beta 0: KL(g || pi), beta 1: KL(pi || g)",
    paper="Agarwal et al., arXiv 2306.13649",
)
OPD = Algorithm(
    name="opd",
    summary="on-policy distillation by policy gradient: the policy's own texts, and how probable the guide finds each token "
    "of them, no reward; also of a server, and of a guide with another tokenizer",
    terms={"policy": Term(loss="clipped_surrogate")},
    advantage="guide_log_ratio",
    equation="min(rho A, clip(rho) A), A_t = log g(y_t | s_t) - log pi(y_t | s_t), g the guide, pi the policy before the "
    "update; across tokenizers of the chunk that y_t belongs to",
    paper="Gu et al., arXiv 2306.08543; Lu et al., On-Policy Distillation, Thinking Machines Lab 2025",
)

ROWS = (SEQ_KD, DAGGER, DISTILL, OPD)
