"""Algorithms as data: each is a row that says who writes which part and which loss reads it.

The trainer reads rows and knows no algorithm by name. To add one, write a row: here, in a recipe
under ``algorithm:``, or in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator
from torch import Tensor

from rlgf import advantages, losses, seeding
from rlgf.errors import UserError, nearest, resolve
from rlgf.schedules import Schedule, Share, constant
from rlgf.types import Author


class Part(StrEnum):
    """The two parts of a response: before the switch and behind it."""

    ROLLIN = "rollin"
    ROLLOUT = "rollout"


def _author(value: Any) -> Any:
    return Author[value.upper()] if isinstance(value, str) and value.upper() in Author.__members__ else value


AuthorName = Annotated[
    Author, BeforeValidator(_author), PlainSerializer(lambda a: Author(a).name.lower(), return_type=str)
]


@dataclass(frozen=True)
class Signals:
    """What an advantage estimator may read."""

    token_rewards: Float[Tensor, "B T"]
    values: Float[Tensor, "B T"]
    mask: Bool[Tensor, "B T"]
    group: Int[Tensor, "B"]
    gamma: float
    gae_lambda: float


Estimates = tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]
"""Advantages (B, T) and value targets (B, T)."""


@dataclass(frozen=True)
class Estimator:
    """A way to estimate advantages."""

    estimate: Callable[[Signals], Estimates]
    grouped: bool = False
    """Whether it compares the members of a group, which then needs two or more."""


def _gae(signals: Signals) -> Estimates:
    return advantages.gae(
        signals.token_rewards, signals.values, signals.mask, signals.gamma, signals.gae_lambda
    )


def _within_group(score: Callable[..., Tensor]) -> Estimator:
    """An estimator that gives every token of an episode its advantage over its group."""

    def estimate(signals: Signals) -> Estimates:
        advantage = score(signals.token_rewards.sum(dim=1), signals.group)
        return advantage[:, None] * signals.mask, torch.zeros_like(signals.values)

    return Estimator(estimate, grouped=True)


ESTIMATORS: Mapping[str, Estimator] = {
    "gae": Estimator(_gae),
    "group_relative": _within_group(advantages.group_relative),
    "leave_one_out": _within_group(advantages.leave_one_out),
}


@dataclass(frozen=True)
class PolicyTerms:
    """What a policy loss may read, for one micro-batch."""

    logprobs: Float[Tensor, "B T"]
    old_logprobs: Float[Tensor, "B T"]
    advantages: Float[Tensor, "B T"]
    mask: Bool[Tensor, "B T"]
    clip: float
    normalizer: float


PolicyLoss = Callable[[PolicyTerms], tuple[Tensor, losses.Metrics]]

POLICY_LOSSES: Mapping[str, PolicyLoss] = {
    "clipped_surrogate": lambda x: losses.clipped_surrogate(
        x.logprobs, x.old_logprobs, x.advantages, x.mask, x.clip, x.normalizer
    ),
    "nll": lambda x: losses.negative_log_likelihood(x.logprobs, x.mask, x.normalizer),
}


class RollinLength(BaseModel):
    """The switch law: a roll-in's length is uniform between two shares of the response limit T.

    ``h ~ Uniform{max(1, ceil(low * T)), ..., min(T - 1, floor(high * T))}``; the default is the
    paper's uniform law over 1..T-1 (arXiv 2306.11816). Where ``high * T`` is below 1 there is no roll-in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: Share = constant(0.0)
    high: Share = constant(1.0)


class Algorithm(BaseModel):
    """One row of the table. The defaults are those of the PPO family."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    summary: str = ""
    rollin: AuthorName | None = None
    rollout: AuthorName = Author.POLICY
    policy_loss: str | None = "clipped_surrogate"
    """None where distillation is all there is to learn from."""
    policy_loss_on: Part = Part.ROLLOUT
    value_loss_on: Part | None = None
    advantage: str | None = None
    whiten: bool = False
    """Whether advantages are whitened over the tokens that the policy loss reads."""
    rollin_prob: Share = constant(0.0)
    """Probability that an episode has a roll-in (the paper's beta)."""
    rollin_length: RollinLength = RollinLength()
    rollin_below: float | None = None
    """Where set, only those groups get a roll-in, and are written again, whose every member on its
    own earns less than this."""
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    distill_coef: Schedule = constant(0.0)
    """Weight of the divergence from the guide at the tokens that the policy loss reads."""
    jsd_beta: float = Field(default=1.0, ge=0, le=1)
    """Which divergence, see `losses.distillation`: 0 is KL(guide || policy), 1 is KL(policy || guide)."""
    equation: str = ""
    paper: str = ""

    @model_validator(mode="after")
    def _coherent(self) -> Algorithm:
        if self.advantage is not None:
            found = resolve(self.advantage, ESTIMATORS, "algorithm.advantage")
            if not isinstance(found, Estimator):
                raise ValueError(f"the advantage '{self.advantage}' must be an rlgf.algorithms.Estimator")
        elif self.policy_loss == "clipped_surrogate":
            raise ValueError(
                "the policy loss 'clipped_surrogate' weighs tokens by an advantage: set 'advantage' to "
                f"{', '.join(ESTIMATORS)} or your own"
            )
        if self.policy_loss is not None:
            resolve(self.policy_loss, POLICY_LOSSES, "algorithm.policy_loss")
        elif not self.distills:
            raise ValueError(
                "without a 'policy_loss' it learns from its guide alone: set 'distill_coef' above 0"
            )
        if self.rollin is None and (
            self.policy_loss_on is Part.ROLLIN or max(self.rollin_prob.start, self.rollin_prob.end) > 0
        ):
            raise ValueError("it reads or draws a roll-in, so 'rollin' must name who writes it")
        if self.rollin_below is not None and (
            self.rollin is None or self.advantage is None or self.rollin is Author.POLICY
        ):
            raise ValueError(
                "'rollin_below' asks for help where a reward is missed: it needs a 'rollin' by the guide or the reference, and an 'advantage'"
            )
        if self.advantage is not None and self.author(self.policy_loss_on) is not Author.POLICY:
            raise ValueError(
                f"the policy loss weighs tokens of the {self.policy_loss_on} by an advantage, so "
                "the policy must have written them"
            )
        if self.value_loss_on is Part.ROLLIN:
            raise ValueError("'value_loss_on' must be 'rollout': a value is that of who finishes the text")
        if self.advantage == "gae" and self.value_loss_on is None:
            raise ValueError("the advantage 'gae' needs a critic: set 'value_loss_on: rollout'")
        return self

    def author(self, part: Part) -> Author:
        """Who writes a part of the response."""
        author = self.rollin if part is Part.ROLLIN else self.rollout
        assert author is not None, "checked when the row was made"
        return author

    @property
    def critic(self) -> str | None:
        """The critic that this row reads and trains, named after whose value it is."""
        return None if self.value_loss_on is None else self.author(self.value_loss_on).name.lower()

    @property
    def grouped(self) -> bool:
        """Whether the advantage compares the members of a group."""
        return self.advantage is not None and resolve(self.advantage, ESTIMATORS, "advantage").grouped

    @property
    def authors(self) -> set[Author]:
        return {self.rollout} | ({self.rollin} if self.rollin is not None else set())

    @property
    def distills(self) -> bool:
        """Whether it ever learns from the guide's probabilities."""
        return max(self.distill_coef.start, self.distill_coef.end) > 0

    @property
    def needs_guide(self) -> bool:
        """Whether a guide writes a part or is learned from."""
        return Author.GUIDE in self.authors or self.distills

    @property
    def unguided(self) -> Algorithm | None:
        """The same without a guide: its roll-ins and distillation are left out.

        None where nothing would be left: a guide finishes the texts, or is all there is to learn from.
        """
        if self.rollout is Author.GUIDE or self.policy_loss is None:
            return None
        row = self.model_copy(update={"distill_coef": constant(0.0)})
        return row.alone if self.rollin is Author.GUIDE else row

    @property
    def alone(self) -> Algorithm:
        """The same without roll-ins."""
        return self.model_copy(update={"rollin": None, "rollin_prob": constant(0.0), "rollin_below": None})

    @property
    def rows(self) -> tuple[Algorithm, ...]:
        return (self,)

    def at(self, update: int, updates: int, seed: int) -> Algorithm:
        """The row that the given update runs."""
        return self


class Mixture(BaseModel):
    """Two rows of which each update runs one: ``explore`` with a probability, else ``imitate``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    summary: str = ""
    imitate: Algorithm
    explore: Algorithm
    explore_prob: Share
    equation: str = ""
    paper: str = ""

    @property
    def unguided(self) -> Algorithm | None:
        """What an update runs without a guide."""
        return self.explore.unguided

    @property
    def rows(self) -> tuple[Algorithm, ...]:
        return (self.imitate, self.explore)

    def at(self, update: int, updates: int, seed: int) -> Algorithm:
        """The row that the given update runs: a function of its arguments alone."""
        draw = seeding.uniforms(1, 1, seed, "mixture", update).item()
        return self.explore if draw < self.explore_prob.at(update / updates) else self.imitate


AnyAlgorithm = Algorithm | Mixture

_RLGF = "Chang et al., arXiv 2306.11816"
_GAE = "A = sum_k (gamma lambda)^k delta_t+k"

BC = Algorithm(
    name="bc",
    summary="behaviour cloning (supervised fine-tuning) of the reference texts",
    rollout=Author.REFERENCE,
    policy_loss="nll",
    equation="-log pi(y_t | s_t)",
    paper="Pomerleau, 1988",
)
PPO = Algorithm(
    name="ppo",
    summary="proximal policy optimization from the prompt",
    value_loss_on=Part.ROLLOUT,
    advantage="gae",
    whiten=True,
    equation=f"min(rho A, clip(rho) A), {_GAE}, V = V^pi",
    paper="Schulman et al., arXiv 1707.06347",
)
PPO_PLUS_PLUS = PPO.model_copy(
    update={
        "name": "ppo++",
        "summary": "PPO from states in the middle of the guide's texts as well",
        "rollin": Author.GUIDE,
        "rollin_prob": constant(0.6),
        "paper": _RLGF,
    }
)
AGGREVATED = PPO.model_copy(
    update={
        "name": "aggrevated",
        "summary": "differentiable AggreVaTe: improve on the guide by one step, the guide finishes",
        "rollin": Author.POLICY,
        "rollout": Author.GUIDE,
        "policy_loss_on": Part.ROLLIN,
        "rollin_prob": constant(0.8),
        "equation": "min(rho A, clip(rho) A), A^g = r_t + gamma V^g(s_t+1) - V^g(s_t)",
        "paper": f"{_RLGF}; Sun et al., arXiv 1703.01030",
    }
)
GRPO = Algorithm(
    name="grpo",
    summary="group-relative policy optimization, no critic",
    advantage="group_relative",
    equation="min(rho A, clip(rho) A), A = (R - mean_group R) / std_group R",
    paper="Shao et al., arXiv 2402.03300",
)
RLOO = GRPO.model_copy(
    update={
        "name": "rloo",
        "summary": "REINFORCE with a leave-one-out baseline, no critic",
        "advantage": "leave_one_out",
        "equation": "min(rho A, clip(rho) A), A = R - mean of the others' R",
        "paper": "Ahmadian et al., arXiv 2402.14740",
    }
)
DISTILL = Algorithm(
    name="distill",
    summary="on-policy distillation: the guide's probabilities at the states of the policy's own texts, no reward",
    policy_loss=None,
    distill_coef=constant(1.0),
    equation="JSD_beta(g, pi) = beta KL(g || m) + (1 - beta) KL(pi || m), m = beta g + (1 - beta) pi; "
    "beta 0: KL(g || pi), beta 1: KL(pi || g)",
    paper="Agarwal et al., arXiv 2306.13649",
)
_GUIDED = {"rollin": Author.GUIDE, "rollin_prob": constant(0.6)}
GUIDED_GRPO = GRPO.model_copy(
    update={"name": "guided-grpo", "summary": "GRPO; a group shares the guide's roll-in", **_GUIDED}
)
BREAD = GUIDED_GRPO.model_copy(
    update={
        "name": "bread",
        "summary": "GRPO; a group of which all fail is written again behind the guide's beginning",
        "rollin_prob": constant(1.0),
        "rollin_below": 0.5,
        "paper": "Zhang et al., arXiv 2506.17211",
    }
)
GUIDED_RLOO = RLOO.model_copy(
    update={"name": "guided-rloo", "summary": "RLOO; a group shares the guide's roll-in", **_GUIDED}
)
DR_PO = PPO_PLUS_PLUS.model_copy(
    update={
        "name": "dr-po",
        "summary": "data-set reset: PPO from states in the middle of the reference texts as well",
        "rollin": Author.REFERENCE,
        "paper": "Chang et al., arXiv 2404.08495",
    }
)
REVERSE_CURRICULUM = DR_PO.model_copy(
    update={
        "name": "reverse-curriculum",
        "summary": "PPO from near the end of the reference texts, then from ever earlier",
        "rollin_prob": constant(1.0),
        "rollin_length": RollinLength(low=Schedule(start=0.9, end=0.0), high=Schedule(start=1.0, end=0.0)),
        "paper": "Xi et al., arXiv 2402.05808",
    }
)
LOLS = Mixture(
    name="lols",
    summary="each update PPO++ with probability 0.8, else AggreVaTeD; two critics",
    imitate=AGGREVATED,
    explore=PPO_PLUS_PLUS,
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
        RLOO,
        GUIDED_RLOO,
        DISTILL,
    )
}


def algorithm_from(spec: Any) -> AnyAlgorithm:
    """An algorithm from what a recipe says: a name, a row, or ``base`` with changed fields.

    Changes without a ``base`` or a ``name`` are changes to `ppo`.

    Raises:
        UserError: ``base`` is not in the table, or a field belongs elsewhere.
    """
    if isinstance(spec, Algorithm | Mixture):
        return spec
    if isinstance(spec, str):
        spec = {"base": spec}
    if not isinstance(spec, Mapping):
        raise ValueError("it must be a name such as 'ppo++', or a mapping with 'base' or 'name'")
    changes = {key: value for key, value in spec.items() if key != "base"}
    if "base" not in spec and "name" in spec:
        return (Mixture if "explore" in spec else Algorithm).model_validate(spec)
    base = str(spec.get("base", "ppo"))
    if base not in ALGORITHMS:
        raise UserError(f"algorithm '{base}' is not known: {nearest(base, ALGORITHMS)}")
    row = ALGORITHMS[base]
    if isinstance(row, Mixture):
        for key in changes.keys() & (Algorithm.model_fields.keys() - Mixture.model_fields.keys()):
            raise UserError(
                f"'{base}' is a mixture, and '{key}' belongs to its rows: set algorithm.explore.{key} or "
                f"algorithm.imitate.{key}."
            )
    return type(row).model_validate(_merge(row.model_dump(), changes))


def _merge(old: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """``new`` over ``old``, level by level; a schedule that says where it starts is a whole one."""
    merged = dict(old)
    for key, value in new.items():
        inner = merged.get(key)
        if isinstance(inner, dict) and isinstance(value, Mapping) and "start" not in value:
            value = _merge(inner, value)
        merged[key] = value
    return merged
