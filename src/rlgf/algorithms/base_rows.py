"""Algorithms without help, which others of the catalog are changes to."""

from __future__ import annotations

from rlgf.algorithms.script import Branches, Script
from rlgf.algorithms.spec import Algorithm
from rlgf.algorithms.terms import Term
from rlgf.schedules import constant
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

ROWS = (BC, PPO, GRPO, RLOO, VINE_PPO)
