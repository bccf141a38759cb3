"""The catalog of algorithms, and how a recipe picks or changes a row of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlgf.algorithms.script import Gate, Help, RollinLength, Script, Span
from rlgf.algorithms.spec import Algorithm, AnyAlgorithm, Mixture, merged
from rlgf.algorithms.terms import Term
from rlgf.errors import UserError, nearest
from rlgf.schedules import Schedule, constant
from rlgf.types import Author

_RLGF = "Chang et al., arXiv 2306.11816"
_GAE = "A = sum_k (gamma lambda)^k delta_t+k"

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
    equation=f"min(rho A, clip(rho) A), {_GAE}, V = V^pi",
    paper="Schulman et al., arXiv 1707.06347",
)
PPO_PLUS_PLUS = PPO.model_copy(
    update={
        "name": "ppo++",
        "summary": "PPO from states in the middle of the guide's texts as well",
        "script": Script(rollin=Author.GUIDE),
        "help": Help(probability=constant(0.6)),
        "paper": _RLGF,
    }
)
AGGREVATED = PPO.model_copy(
    update={
        "name": "aggrevated",
        "summary": "differentiable AggreVaTe: improve on the guide by one step, the guide finishes",
        "script": Script(rollin=Author.POLICY, rollout=Author.GUIDE),
        "help": Help(probability=constant(0.8)),
        "terms": {**PPO.terms, "policy": Term(loss="clipped_surrogate", on=Span.ROLLIN)},
        "equation": f"min(rho A, clip(rho) A), {_GAE}, V = V^g; lambda {PPO.gae_lambda:g}, "
        "at lambda 0: A^g = r_t + gamma V^g(s_t+1) - V^g(s_t)",
        "paper": f"{_RLGF}; Sun et al., arXiv 1703.01030",
    }
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
RLOO = GRPO.model_copy(
    update={
        "name": "rloo",
        "summary": "REINFORCE with a leave-one-out baseline, no critic",
        "terms": {"policy": Term(loss="clipped_surrogate")},
        "advantage": "leave_one_out",
        "equation": "min(rho A, clip(rho) A), A = R - mean of the others' R",
        "paper": "Ahmadian et al., arXiv 2402.14740",
    }
)
DISTILL = Algorithm(
    name="distill",
    summary="on-policy distillation: the guide's probabilities at the states of the policy's own texts, no reward",
    terms={"distill": Term(loss="distillation")},
    equation="JSD_beta(g, pi) = beta KL(g || m) + (1 - beta) KL(pi || m), m = beta g + (1 - beta) pi; "
    "beta 0: KL(g || pi), beta 1: KL(pi || g)",
    paper="Agarwal et al., arXiv 2306.13649",
)
_GUIDED = {"script": Script(rollin=Author.GUIDE), "help": Help(probability=constant(0.6))}
GUIDED_GRPO = GRPO.model_copy(
    update={"name": "guided-grpo", "summary": "GRPO; a group shares the guide's roll-in", **_GUIDED}
)
BREAD = GUIDED_GRPO.model_copy(
    update={
        "name": "bread",
        "summary": "GRPO; a group of which all fail is written again after the shortest of the guide's beginnings "
        "that is found to help",
        "help": Help(probability=constant(1.0), success=0.5, gate=Gate(), length=RollinLength(by="trial")),
        "paper": "Zhang et al., arXiv 2506.17211",
    }
)
ADABACK = GRPO.model_copy(
    update={
        "name": "adaback",
        "summary": "GRPO after the beginning of the reference, whose length is searched for each prompt over its visits",
        "script": Script(rollin=Author.REFERENCE),
        "help": Help(probability=constant(1.0), success=0.5, length=RollinLength(by="record", enough=0.5)),
        "paper": "Amani et al., arXiv 2506.18110",
    }
)
HPT = GRPO.model_copy(
    update={
        "name": "hpt",
        "summary": "GRPO where some of a group's texts succeed, and the NLL of the reference in place of a group that fails",
        "script": Script(rollin=Author.REFERENCE),
        "help": Help(
            probability=constant(1.0),
            length=RollinLength(whole=True),
            success=0.5,
            gate=Gate(),
            shared=False,
        ),
        "terms": {
            "policy": Term(loss="clipped_surrogate"),
            "rollin": Term(loss="nll", on=Span.ROLLIN),
            "kl": Term(loss="kl"),
        },
        "equation": "GRPO's over groups with a success, -log pi(y_t | s_t) of the reference for the others",
        "paper": "Lv et al., arXiv 2509.04419",
    }
)
LUFFY = GUIDED_GRPO.model_copy(
    update={
        "name": "luffy",
        "summary": "GRPO over groups of which the guide wrote one text whole, and learns from that one too",
        "help": Help(members=1, length=RollinLength(whole=True), shared=False),
        "terms": {
            "policy": Term(loss="clipped_surrogate"),
            "rollin": Term(loss="shaped_importance", on=Span.ROLLIN),
            "kl": Term(loss="kl"),
        },
        "equation": "GRPO's sum over the policy's tokens and that of f(pi) A over the guide's, f(x) = x / (x + 0.1), "
        "over the number of both",
        "paper": "Yan et al., arXiv 2504.14945",
    }
)
GUIDED_RLOO = RLOO.model_copy(
    update={"name": "guided-rloo", "summary": "RLOO; a group shares the guide's roll-in", **_GUIDED}
)
DPO = Algorithm(
    name="dpo",
    summary="online direct preference optimization: the best text of a group over its worst",
    terms={"policy": Term(loss="dpo", on=Span.WHOLE)},
    advantage="preference",
    group_size=4,
    equation="-log sigmoid(beta (log pi(y+) / ref(y+) - log pi(y-) / ref(y-)))",
    paper="Rafailov et al., arXiv 2305.18290; Guo et al., arXiv 2402.04792",
)
OFFLINE_DPO = DPO.model_copy(
    update={
        "name": "offline-dpo",
        "summary": "direct preference optimization on the data's pairs, no reward",
        "script": Script(rollout=Author.REFERENCE),
        "advantage": "given_order",
        "group_size": 2,
        "paper": "Rafailov et al., arXiv 2305.18290",
    }
)
REBEL = DPO.model_copy(
    update={
        "name": "rebel",
        "summary": "regression of reward differences on the change of the policy, best and worst of a group",
        "terms": {"policy": Term(loss="rebel", on=Span.WHOLE)},
        "advantage": "reward_difference",
        "equation": "(beta (log pi(y) / old(y) - log pi(y') / old(y')) - (R(y) - R(y')))^2",
        "paper": "Gao et al., arXiv 2404.16767",
    }
)
# Half of a group's texts are begun by the guide, each to its own length, so that pairs are of both kinds.
_BEGUN = {"script": Script(rollin=Author.GUIDE), "help": Help(probability=constant(0.5), shared=False)}
GUIDED_DPO = DPO.model_copy(
    update={
        "name": "guided-dpo",
        "summary": "online DPO over groups in which the guide began some of the texts",
        **_BEGUN,
    }
)
GUIDED_REBEL = REBEL.model_copy(
    update={
        "name": "guided-rebel",
        "summary": "REBEL over groups in which the guide began some of the texts",
        **_BEGUN,
    }
)
DR_PO = PPO.model_copy(
    update={
        "name": "dr-po",
        "summary": "data-set reset: PPO from states in the middle of the reference texts as well",
        "script": Script(rollin=Author.REFERENCE),
        "help": Help(probability=constant(1.0)),
        "paper": "Chang et al., arXiv 2404.08495",
    }
)
REVERSE_CURRICULUM = DR_PO.model_copy(
    update={
        "name": "reverse-curriculum",
        "summary": "PPO from near the end of the reference texts, then from ever earlier",
        "help": Help(
            probability=constant(1.0),
            length=RollinLength(low=Schedule(start=0.9, end=0.0), high=Schedule(start=1.0, end=0.0)),
        ),
        "paper": "Xi et al., arXiv 2402.05808",
    }
)
GAIL = PPO.model_copy(
    update={
        "name": "gail",
        "summary": "PPO on a discriminator that learns to tell the policy's texts from the references",
        "learned_reward": True,
        "equation": f"{PPO.equation}, R = log D - log(1 - D), D trained on -log D(reference) - log(1 - D(y))",
        "paper": "Ho and Ermon, arXiv 1606.03476",
    }
)
LOLS = Mixture(
    name="lols",
    summary="each update PPO++ with probability 0.8, else AggreVaTeD; two critics",
    imitate=AGGREVATED,
    explore=PPO_PLUS_PLUS.model_copy(update={"help": Help(probability=constant(0.8))}),
    explore_prob=constant(0.8),
    equation="as its parts",
    paper=f"{_RLGF}; Chang et al., arXiv 1502.02206",
)
D2LOLS = LOLS.model_copy(
    update={
        "name": "d2lols",
        "summary": "AggreVaTeD for the first 0.4 of the run, PPO++ after; two critics",
        "explore_prob": Schedule(start=0.0, end=1.0, shape="step", over=0.4),
        "paper": _RLGF,
    }
)

ALGORITHMS: Mapping[str, AnyAlgorithm] = {
    a.name: a
    for a in (
        BC,
        PPO,
        PPO_PLUS_PLUS,
        AGGREVATED,
        LOLS,
        D2LOLS,
        DR_PO,
        REVERSE_CURRICULUM,
        GRPO,
        GUIDED_GRPO,
        BREAD,
        ADABACK,
        HPT,
        LUFFY,
        RLOO,
        GUIDED_RLOO,
        DISTILL,
        GAIL,
        DPO,
        GUIDED_DPO,
        OFFLINE_DPO,
        REBEL,
        GUIDED_REBEL,
    )
}


def algorithm_from(spec: Any) -> AnyAlgorithm:
    """An algorithm from what a recipe says: a name, a row, or ``base`` with changed fields.

    Changes without a ``base`` or a ``name`` are changes to `ppo`. What a mixture has only in its rows is changed in
    both of them; each of these can be named, or have a ``base``, too.

    Raises:
        UserError: ``base`` is not in the catalog, or a row of a mixture is itself a mixture.
        ValueError: it is neither a name nor a mapping, or a field does not fit.
    """
    if isinstance(spec, Algorithm | Mixture):
        return spec
    if isinstance(spec, str):
        spec = {"base": spec}
    if not isinstance(spec, Mapping):
        raise ValueError("it must be a name such as 'ppo++', or a mapping with 'base' or 'name'")
    changes = {key: value for key, value in spec.items() if key != "base"}
    if "base" not in spec and "name" in spec:
        rows = {key: _member(key, changes[key]) for key in _MEMBERS if key in changes}
        return (Mixture if rows else Algorithm).model_validate(changes | rows)
    base = str(spec.get("base", "ppo"))
    if base not in ALGORITHMS:
        raise UserError(f"algorithm '{base}' is not known: {nearest(base, ALGORITHMS)}")
    row = ALGORITHMS[base]
    if isinstance(row, Mixture):
        of_rows = {key: changes.pop(key) for key in [*changes] if key in _OF_ROWS}
        for name in _MEMBERS:
            own = changes.get(name, {})
            changes[name] = _member(name, merged(of_rows, {"base": own} if isinstance(own, str) else own))
    return type(row).model_validate(merged(row.model_dump(), changes))


def _member(key: str, spec: Any) -> Any:
    """A row of a mixture, where it is named or changes one that is; anything else as it stands."""
    if not isinstance(spec, str) and not (isinstance(spec, Mapping) and "base" in spec):
        return spec
    row = algorithm_from(spec)
    if isinstance(row, Mixture):
        raise UserError(f"'algorithm.{key}' is the mixture '{row.name}': name an algorithm of one row.")
    return row


_MEMBERS = ("imitate", "explore")
_OF_ROWS = Algorithm.model_fields.keys() - Mixture.model_fields.keys()


def carried(old: Mapping[str, Any], base: str) -> dict[str, Any]:
    """What stays of a recipe's algorithm where a later recipe names another: what belongs to the task and its rewards.

    That is the discount, the KL penalty, terms that the recipe added, and how much the value loss weighs, for an
    algorithm that has one.
    """
    kept = {key: old[key] for key in ("gamma", "kl") if key in old}
    terms, before, after = old.get("terms"), _terms_of(old.get("base", "ppo")), _terms_of(base)
    if isinstance(terms, Mapping):
        stays = {
            name: term
            for name, term in terms.items()
            if name not in before or (name == "value" and name in after)
        }
        kept |= {"terms": stays} if stays else {}
    return kept


def _terms_of(base: str) -> set[str]:
    """The names of the terms of an algorithm's rows; none for an unknown one."""
    row = ALGORITHMS.get(base)
    return {name for one in row.rows for name in one.terms} if row is not None else set()
