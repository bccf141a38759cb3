"""What a row of the table says: who writes which part, and which loss reads it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from rlgf import seeding
from rlgf.algorithms.law import RollinLength
from rlgf.algorithms.pieces import (
    ESTIMATORS,
    PAIR_LOSSES,
    POLICY_GRADIENTS,
    POLICY_LOSSES,
    Estimator,
    PairLoss,
)
from rlgf.errors import resolve
from rlgf.identity import FREE
from rlgf.schedules import Schedule, Share, constant
from rlgf.types import Author


class Part(StrEnum):
    """The two parts of a response, before the switch and behind it; or both, for losses over pairs."""

    ROLLIN = "rollin"
    ROLLOUT = "rollout"
    WHOLE = "whole"


def _author(value: Any) -> Any:
    return Author[value.upper()] if isinstance(value, str) and value.upper() in Author.__members__ else value


AuthorName = Annotated[
    Author, BeforeValidator(_author), PlainSerializer(lambda a: Author(a).name.lower(), return_type=str)
]


class Algorithm(BaseModel):
    """One row of the table. The defaults are those of the PPO family."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    summary: Annotated[str, FREE] = ""
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
    rollin_members: int | None = Field(default=None, ge=1)
    """Where set, exactly so many members of each group have a roll-in, whatever `rollin_prob`."""
    rollin_length: RollinLength = RollinLength()
    rollin_below: float | None = None
    """Where set, only those groups get a roll-in, and are written again, whose every member on its
    own earns less than this."""
    rollin_shared: bool = True
    """Whether the members of a group share one roll-in, or each draws its own."""
    rollin_loss: str | None = None
    """What the policy learns from roll-in tokens that others wrote: nothing, or by this policy loss.
    'nll' is a mean of its own beside the policy loss; 'shaped_importance' makes one mean with it over the
    tokens of both."""
    rollin_coef: Schedule = constant(1.0)
    """Weight of the `rollin_loss`."""
    learned_reward: bool = False
    """Whether it is meant for a reward that learns beside the policy, and refused with another."""
    pair_beta: float = Field(default=0.1, gt=0)
    """Factor of the log-ratios in a loss over pairs: DPO's beta, REBEL's 1 / eta."""
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    distill_coef: Schedule = constant(0.0)
    """Weight of the divergence from the guide at the tokens that the policy loss reads."""
    jsd_beta: float = Field(default=1.0, ge=0, le=1)
    """Which divergence, see `losses.distillation`: 0 is KL(guide || policy), 1 is KL(policy || guide)."""
    equation: Annotated[str, FREE] = ""
    paper: Annotated[str, FREE] = ""

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
            resolve(self.policy_loss, {**POLICY_LOSSES, **PAIR_LOSSES}, "algorithm.policy_loss")
        elif not self.distills:
            raise ValueError(
                "without a 'policy_loss' it learns from its guide alone: set 'distill_coef' above 0"
            )
        if self.rollin is None and (
            self.policy_loss_on is Part.ROLLIN or max(self.rollin_prob.start, self.rollin_prob.end) > 0
        ):
            raise ValueError("it reads or draws a roll-in, so 'rollin' must name who writes it")
        self._check_rollin_members()
        if self.rollin_below is not None and (
            self.rollin is None or self.advantage is None or self.rollin is Author.POLICY
        ):
            raise ValueError(
                "'rollin_below' asks for help where a reward is missed: it needs a 'rollin' by the guide or the reference, and an 'advantage'"
            )
        self._check_rollin_loss()
        self._check_pairs()
        if (
            self.advantage is not None
            and not self.paired
            and self.author(self.policy_loss_on) is not Author.POLICY
        ):
            raise ValueError(
                f"the policy loss weighs tokens of the {self.policy_loss_on} by an advantage, so "
                "the policy must have written them"
            )
        if self.value_loss_on not in (None, Part.ROLLOUT):
            raise ValueError("'value_loss_on' must be 'rollout': a value is that of who finishes the text")
        if self.advantage == "gae" and self.value_loss_on is None:
            raise ValueError("the advantage 'gae' needs a critic: set 'value_loss_on: rollout'")
        return self

    def _check_rollin_members(self) -> None:
        if self.rollin_members is not None and (
            self.rollin is None or self.rollin_shared or max(self.rollin_prob.start, self.rollin_prob.end) > 0
        ):
            raise ValueError(
                "'rollin_members' says how many members of a group have a roll-in of their own: set 'rollin' to who "
                "writes it, 'rollin_shared: false', and no 'rollin_prob'; or 'rollin_members: null'"
            )
        if self.rollin_length.whole and (self.rollin in (None, Author.POLICY) or self._members_alike):
            raise ValueError(
                "'rollin_length.whole' gives an episode to the author of its roll-in: set 'rollin' to guide or "
                "reference, and in groups 'rollin_shared: false', so that members differ"
            )

    @property
    def _members_alike(self) -> bool:
        return self.grouped and self.rollin_shared

    def _check_rollin_loss(self) -> None:
        if self.rollin_loss is None:
            return
        resolve(self.rollin_loss, POLICY_LOSSES, "algorithm.rollin_loss")
        if self.rollin in (None, Author.POLICY):
            raise ValueError("'rollin_loss' reads what others wrote: set 'rollin' to guide or reference")
        if self.rollin_loss == "clipped_surrogate":
            raise ValueError(
                "'rollin_loss' cannot be 'clipped_surrogate', which needs the writer's probabilities: "
                "set 'nll' or 'shaped_importance'"
            )
        if self.rollin_loss == "shaped_importance" and self._members_alike:
            raise ValueError(
                "the advantages of a group cancel over a roll-in that its members share: set "
                "'rollin_shared: false', or 'rollin_loss: nll'"
            )

    def _check_pairs(self) -> None:
        pairing = self.advantage is not None and self._estimator.paired
        if self.paired != pairing:
            pairings = ", ".join(name for name, e in ESTIMATORS.items() if e.paired)
            raise ValueError(
                f"pairs are picked by the advantages {pairings} and learned from by the policy losses "
                f"{', '.join(PAIR_LOSSES)}: set one of each, or neither"
            )
        if self.paired != (self.policy_loss_on is Part.WHOLE):
            raise ValueError(
                "a loss over pairs, and no other, reads whole texts: set 'policy_loss_on: whole' for "
                f"{', '.join(PAIR_LOSSES)} alone"
            )
        if self.paired and (self.whiten or self.value_loss_on is not None):
            raise ValueError(
                "a loss over pairs needs no critic and no whitening: leave 'value_loss_on' and 'whiten' out"
            )
        if self.from_pairs and self.rollin is not None:
            raise ValueError("pairs of the data are whole texts: leave 'rollin' out")
        if pairing and not self.needs_reward and not self.from_pairs:
            raise ValueError(
                f"the advantage '{self.advantage}' takes pairs as the data ranks them: set 'rollout: reference', or "
                "'advantage: preference' to rank by a reward"
            )

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
    def _estimator(self) -> Estimator:
        assert self.advantage is not None, "asked for where it is set"
        found: Estimator = resolve(self.advantage, ESTIMATORS, "algorithm.advantage")
        return found

    @property
    def grouped(self) -> bool:
        """Whether the advantage compares the members of a group."""
        return self.advantage is not None and self._estimator.grouped

    @property
    def needs_reward(self) -> bool:
        """Whether episodes are scored by a reward."""
        return self.advantage is not None and self._estimator.needs_reward

    @property
    def kl_penalty(self) -> Literal["reward", "loss"] | None:
        """Where the KL penalty goes: into the rewards, into the loss, or nowhere."""
        return None if self.advantage is None else self._estimator.kl_penalty

    @property
    def pair_loss(self) -> PairLoss | None:
        """The policy loss, where it is one over pairs."""
        return PAIR_LOSSES.get(self.policy_loss or "")

    @property
    def paired(self) -> bool:
        """Whether the policy loss is one over pairs of whole texts."""
        return self.pair_loss is not None

    @property
    def learns_as_one(self) -> bool:
        """Whether the policy loss and the roll-in loss are one sum over one number of tokens."""
        return {self.policy_loss, self.rollin_loss} <= POLICY_GRADIENTS

    @property
    def from_pairs(self) -> bool:
        """Whether the episodes are the preferred and the rejected texts of the data."""
        return self.paired and self.rollout is Author.REFERENCE

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
        without = ("rollin", "rollin_members", "rollin_below", "rollin_loss")
        return self.model_copy(
            update={
                **dict.fromkeys(without),
                "rollin_prob": constant(0.0),
                "rollin_length": RollinLength(),
            }
        )

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
    summary: Annotated[str, FREE] = ""
    imitate: Algorithm
    explore: Algorithm
    explore_prob: Share
    equation: Annotated[str, FREE] = ""
    paper: Annotated[str, FREE] = ""

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
