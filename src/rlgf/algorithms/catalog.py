"""The catalog of algorithms."""

from __future__ import annotations

from collections.abc import Mapping

from rlgf.algorithms import base_rows, imitation_rows, reference_rows
from rlgf.algorithms.base_rows import GAE, GRPO, PPO, RLOO
from rlgf.algorithms.script import Gate, Help, Hint, Reader, RollinLength, Script, Span, StartValue, View
from rlgf.algorithms.spec import Algorithm, AnyAlgorithm, Mixture
from rlgf.algorithms.terms import Term
from rlgf.schedules import Schedule, constant
from rlgf.types import Author

HINTED_GRPO = GRPO.but(
    name="hinted-grpo",
    summary="Guide-GRPO: a group of which all fail is written again after the guide's hint, and learned from as "
    "an answer to the prompt without it",
    script=Script(hint=Hint(author=Author.GUIDE)),
    help=Help(probability=constant(1.0), success=0.5, gate=Gate(), length=RollinLength(whole=True)),
    terms={
        "policy": Term(loss="clipped_surrogate", view=View.PROMPT),
        "kl": Term(loss="kl", view=View.PROMPT),
    },
    equation=f"{GRPO.equation}, rho = pi(y_t | x, y_<t) / old(y_t | x, hint, y_<t)",
    paper="Nath et al., arXiv 2506.13923",
)
_HALF_THEN_QUARTER = Schedule(start=0.5, end=0.25, shape="step", over=0.5)
QUESTA = GRPO.but(
    name="questa",
    summary="GRPO after prompts with the first half of the reference in them, and a quarter later on",
    script=Script(hint=Hint(author=Author.REFERENCE, template="{prompt}\n\nHint: {hint}\n\n")),
    help=Help(
        probability=constant(1.0), length=RollinLength(low=_HALF_THEN_QUARTER, high=_HALF_THEN_QUARTER)
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
    help=Help(probability=constant(1.0), success=0.5, gate=Gate(), length=RollinLength(whole=True)),
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

SDPO = SDFT.but(
    name="sdpo",
    summary="self-distillation policy optimization: the probabilities of a guide that reads the policy's own earlier success "
    "at the prompt, at the states of its new text",
    script=Script(
        hint=Hint(
            author=Author.PAST,
            template="{prompt}\n\nA correct solution: {hint}\n\n",
            reader=Reader.GUIDE,
        )
    ),
    help=Help(probability=constant(1.0), success=0.5, length=RollinLength(whole=True)),
    equation="KL(pi || g), g = guide(. | x, success, y_<t), pi = pi(. | x, y_<t)",
    paper="Hübotter et al., arXiv 2601.20802",
)


_RLGF = "Chang et al., arXiv 2306.11816"

PPO_PLUS_PLUS = PPO.but(
    name="ppo++",
    summary="PPO from states in the middle of the guide's texts as well",
    script=Script(rollin=Author.GUIDE),
    help=Help(probability=constant(0.6)),
    paper=_RLGF,
)
AGGREVATED = PPO.but(
    name="aggrevated",
    summary="differentiable AggreVaTe: improve on the guide by one step, the guide finishes",
    script=Script(rollin=Author.POLICY, rollout=Author.GUIDE),
    help=Help(probability=constant(0.8)),
    terms={**PPO.terms, "policy": Term(loss="clipped_surrogate", on=Span.ROLLIN)},
    equation=f"min(rho A, clip(rho) A), {GAE}, V = V^g; lambda {PPO.gae_lambda}, "
    "at lambda 0: A^g = r_t + gamma V^g(s_t+1) - V^g(s_t)",
    paper=f"{_RLGF}; Sun et al., arXiv 1703.01030",
)
_GUIDED = {"script": Script(rollin=Author.GUIDE), "help": Help(probability=constant(0.6))}
GUIDED_GRPO = GRPO.but(name="guided-grpo", summary="GRPO; a group shares the guide's roll-in", **_GUIDED)
BREAD = GUIDED_GRPO.but(
    name="bread",
    summary="GRPO; a group of which all fail is written again after the shortest of the guide's beginnings "
    "that is found to help",
    help=Help(probability=constant(1.0), success=0.5, gate=Gate(), length=RollinLength(by="trial")),
    paper="Zhang et al., arXiv 2506.17211",
)
LUFFY = GUIDED_GRPO.but(
    name="luffy",
    summary="GRPO over groups of which the guide wrote one text whole, and learns from that one too",
    help=Help(members=1, length=RollinLength(whole=True), shared=False),
    terms={
        "policy": Term(loss="clipped_surrogate"),
        "rollin": Term(loss="shaped_importance", on=Span.ROLLIN),
        "kl": Term(loss="kl"),
    },
    equation="GRPO's sum over the policy's tokens and that of f(pi) A over the guide's, f(x) = x / (x + 0.1), "
    "over the number of both",
    paper="Yan et al., arXiv 2504.14945",
)
EXGRPO = LUFFY.but(
    name="exgrpo",
    summary="GRPO over groups of which one text is an earlier success of the policy's own, and learns from that one too",
    script=Script(rollin=Author.PAST),
    help=Help(
        members=1,
        success=0.5,
        gate=Gate(looks_at="record", high=0.99),
        length=RollinLength(whole=True),
        shared=False,
    ),
    terms={**LUFFY.terms, "rollin": Term(loss="shaped_ratio", on=Span.ROLLIN)},
    equation="GRPO's sum over the new texts' tokens and that of f(pi / past) A over the old one's, f(x) = x / (x + 0.1), "
    "over the number of both",
    paper="Zhan et al., arXiv 2510.02245",
)
GUIDED_RLOO = RLOO.but(name="guided-rloo", summary="RLOO; a group shares the guide's roll-in", **_GUIDED)
DPO = Algorithm(
    name="dpo",
    summary="online direct preference optimization: the best text of a group over its worst",
    terms={"policy": Term(loss="dpo", on=Span.WHOLE)},
    advantage="preference",
    group_size=4,
    equation="-log sigmoid(beta (log pi(y+) / ref(y+) - log pi(y-) / ref(y-)))",
    paper="Rafailov et al., arXiv 2305.18290; Guo et al., arXiv 2402.04792",
)
OFFLINE_DPO = DPO.but(
    name="offline-dpo",
    summary="direct preference optimization on the data's pairs, no reward",
    script=Script(rollout=Author.REFERENCE),
    advantage="given_order",
    group_size=2,
    paper="Rafailov et al., arXiv 2305.18290",
)
REBEL = DPO.but(
    name="rebel",
    summary="regression of reward differences on the change of the policy, best and worst of a group",
    terms={"policy": Term(loss="rebel", on=Span.WHOLE)},
    advantage="reward_difference",
    equation="(beta (log pi(y) / old(y) - log pi(y') / old(y')) - (R(y) - R(y')))^2",
    paper="Gao et al., arXiv 2404.16767",
)
A_STAR_PO = Algorithm(
    name="a-star-po",
    summary="optimal advantage regression: one text for each prompt, whose reward is compared with a value of the prompt that texts of the start tell",
    terms={"policy": Term(loss="advantage_regression")},
    advantage="over_start",
    start_value=StartValue(),
    equation="(beta log pi(y) / ref(y) - (R(y) - V))^2, V = b log mean_i exp(R(y_i) / b), y_i of ref",
    paper="Brantley et al., arXiv 2505.20686",
)
# Half of a group's texts are begun by the guide, each to its own length, so that pairs are of both kinds.
_BEGUN = {"script": Script(rollin=Author.GUIDE), "help": Help(probability=constant(0.5), shared=False)}
GUIDED_DPO = DPO.but(
    name="guided-dpo",
    summary="online DPO over groups in which the guide began some of the texts",
    **_BEGUN,
)
GUIDED_REBEL = REBEL.but(
    name="guided-rebel",
    summary="REBEL over groups in which the guide began some of the texts",
    **_BEGUN,
)
GAIL = PPO.but(
    name="gail",
    summary="PPO on a discriminator that learns to tell the policy's texts from the references",
    learned_reward=True,
    equation=f"{PPO.equation}, R = log D - log(1 - D), D trained on -log D(reference) - log(1 - D(y))",
    paper="Ho and Ermon, arXiv 1606.03476",
)
GAD = GRPO.but(
    name="gad",
    summary="black-box adversarial distillation: GRPO on a discriminator that learns to tell the policy's texts "
    "from the guide's",
    learned_reward=True,
    examples=Author.GUIDE,
    equation=f"{GRPO.equation}, R = log D - log(1 - D), D trained on -log D(guide's) - log(1 - D(y))",
    paper="Ye et al., arXiv 2511.10643",
)
LOLS = Mixture(
    name="lols",
    summary="each update PPO++ with probability 0.8, else AggreVaTeD; two critics",
    imitate=AGGREVATED,
    explore=PPO_PLUS_PLUS.but(help=Help(probability=constant(0.8))),
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

_ROWS: tuple[AnyAlgorithm, ...] = (
    *(*base_rows.ROWS, *imitation_rows.ROWS, *reference_rows.ROWS),
    *(HINTED_GRPO, QUESTA, POPE, SAGE, GHPO, SCAF_GRPO, OPSD, SDFT, SDPO),
    *(PPO_PLUS_PLUS, AGGREVATED, LOLS, D2LOLS),
    *(GUIDED_GRPO, BREAD, LUFFY, EXGRPO, GUIDED_RLOO),
    *(GAIL, GAD, DPO, GUIDED_DPO, OFFLINE_DPO, REBEL, GUIDED_REBEL, A_STAR_PO),
)
ALGORITHMS: Mapping[str, AnyAlgorithm] = {row.name: row for row in _ROWS}
