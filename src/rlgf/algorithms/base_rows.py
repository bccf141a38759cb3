"""Algorithms that others of the catalog are changes to, that imitate the guide and need no reward, or that begin texts with
the data's references or imitate these beside a reward."""

from __future__ import annotations

from rlgf.algorithms.script import Branches, Gate, Help, RollinLength, Script, Span
from rlgf.algorithms.spec import Algorithm
from rlgf.algorithms.terms import Selection, Term
from rlgf.schedules import Schedule, constant
from rlgf.types import Author

GAE = "A = sum_k (gamma lambda)^k delta_t+k"

BC = Algorithm(
    name="bc",
    summary="behaviour cloning (supervised fine-tuning) of the reference texts",
    script=Script(rollout=Author.REFERENCE),
    terms={"policy": Term(loss="nll")},
    equation="-log pi(y_t | s_t)",
    paper="Pomerleau, 1988",
)
PPO = Algorithm(
    name="ppo",
    summary="proximal policy optimization from the prompt",
    terms={
        "policy": Term(loss="clipped_surrogate"),
        "value": Term(loss="value", weight=constant(0.5)),
    },
    advantage="gae",
    whiten=True,
    equation=f"min(rho A, clip(rho) A), {GAE}, V = V^pi",
    paper="Schulman et al., arXiv 1707.06347",
)
GRPO = Algorithm(
    name="grpo",
    summary="group-relative policy optimization, no critic",
    terms={"policy": Term(loss="clipped_surrogate"), "kl": Term(loss="kl")},
    advantage="group_relative",
    group_size=4,
    equation="min(rho A, clip(rho) A) - c KL(pi || ref), A = (R - mean_group R) / std_group R",
    paper="Shao et al., arXiv 2402.03300",
)
RLOO = GRPO.but(
    name="rloo",
    summary="REINFORCE with a leave-one-out baseline, no critic",
    terms={"policy": Term(loss="clipped_surrogate")},
    advantage="leave_one_out",
    equation="min(rho A, clip(rho) A), A = R - mean of the others' R",
    paper="Ahmadian et al., arXiv 2402.14740",
)
VINE_PPO = GRPO.but(
    name="vineppo",
    summary="PPO without a critic: the value of a state is the mean reward of texts that go on from it",
    advantage="branched",
    group_size=1,
    branches=Branches(),
    equation="min(rho A, clip(rho) A) - c KL(pi || ref), A = V(s_n) - V(s_c), V(s) = mean R of texts from s, s_c and s_n "
    "the states around the token that texts branch off from",
    paper="Kazemnejad et al., arXiv 2410.01679",
)


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
        probability=constant(1.0),
        length=RollinLength(whole=True),
        success=0.5,
        gate=Gate(),
        shared=False,
    ),
    terms={
        "policy": Term(loss="clipped_surrogate"),
        "rollin": Term(loss="nll", on=Span.ROLLIN),
        "kl": Term(loss="kl"),
    },
    equation="GRPO's over groups with a success, -log pi(y_t | s_t) of the reference for the others",
    paper="Lv et al., arXiv 2509.04419",
)
PREFIX_RFT = GRPO.but(
    name="prefix-rft",
    summary="GRPO over groups of which one text goes on from the reference's beginning, ever less of it, and "
    "learns from that too where the policy is in doubt",
    script=Script(rollin=Author.REFERENCE),
    help=Help(
        members=1,
        length=RollinLength(
            low=Schedule(start=0.95, end=0.05, shape="cosine"),
            high=Schedule(start=0.95, end=0.05, shape="cosine"),
        ),
        shared=False,
    ),
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

ROWS = (
    *(BC, PPO, GRPO, RLOO, VINE_PPO),
    *(SEQ_KD, DAGGER, DISTILL, OPD),
    *(DR_PO, REVERSE_CURRICULUM, PREFIX_RL, UFT, ADABACK, HPT, PREFIX_RFT, CHORD),
)
