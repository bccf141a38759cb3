"""What a row of the catalog says: script, help and terms, and how advantages are estimated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from rlgf.algorithms.estimators import ESTIMATORS, Estimator
from rlgf.algorithms.script import AuthorName, Branches, Help, Script, StartValue, Tier, View
from rlgf.algorithms.terms import LOSSES, Term
from rlgf.identity import FREE
from rlgf.registry import resolve
from rlgf.strict import Strict
from rlgf.types import Author


class KLConfig(Strict):
    """The penalty for leaving the reference.

    Either ``coefficient * (log pi - log reference)`` comes off the reward of each of the policy's tokens, or
    ``coefficient * KL(pi || reference)`` is a term of its loss, see `Algorithm.kl_penalty`.
    """

    coefficient: float = Field(default=0.001, ge=0, allow_inf_nan=False)
    """Where an adaptive coefficient starts."""
    target: float | None = Field(default=None, gt=0)
    """KL in nats per token that the coefficient is steered to; None keeps it fixed."""
    horizon: float = Field(default=10.0, ge=1)
    """Updates over which a coefficient grows by the relative error; larger is slower. Below 0.2 it would fall below 0."""

    def next(self, coefficient: float, kl: float) -> float:
        """The coefficient after an update whose mean KL, in nats per token, was ``kl``.

        Proportional control in log space: ``c *= 1 + clip(KL / target - 1, -0.2, 0.2) / horizon``
        (Ziegler et al., arXiv 1909.08593, section 2.2).
        """
        if self.target is None:
            return coefficient
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        return coefficient * (1 + error / self.horizon)


class Row(Strict):
    """The fields of an algorithm and what follows from them; whether they fit together is not asked here."""

    name: str
    summary: Annotated[str, FREE] = ""
    script: Script = Script()
    help: Help = Help()
    terms: Mapping[str, Term]
    """The losses, by name, whose sum is minimized. In a recipe also a list, whose terms are named after
    their losses; null takes a term out."""
    advantage: str | None = None
    """How advantages are estimated, or pairs picked; None for losses that read neither."""
    gamma: float = Field(default=1.0, ge=0, le=1)
    """The discount of rewards, per token."""
    gae_lambda: Annotated[float, Field(ge=0, le=1)] | Literal["adaptive"] = 0.95
    """Of generalized advantage estimation; ``adaptive`` is 1 less the share of the returns' variance that the critic
    foresaw in the update's own episodes, see `rlgf.objectives.advantages.adaptive_lambda`."""
    whiten: bool = False
    """Whether advantages are whitened over the tokens whose losses read them."""
    group_size: int = Field(default=1, ge=1)
    """Episodes that share a prompt, and a roll-in unless `help.shared` is off."""
    branches: Branches | None = Field(default=None, exclude_if=lambda branches: branches is None)
    """Texts that the advantage values states by."""
    kl: KLConfig = KLConfig()
    start_value: StartValue | None = Field(default=None, exclude_if=lambda value: value is None)
    """How the value of a prompt is estimated from texts of the policy's frozen start, where the advantage reads it."""
    learned_reward: bool = False
    """Whether it is meant for a reward that learns beside the policy, and refused with another."""
    examples: AuthorName = Field(
        default=Author.REFERENCE, exclude_if=lambda author: author is Author.REFERENCE
    )
    """Whose texts such a reward learns to tell the policy's from: the data's references, or one that the guide writes
    for each prompt of an update."""
    equation: Annotated[str, FREE] = ""
    paper: Annotated[str, FREE] = ""

    @field_validator("gae_lambda", mode="wrap")
    @classmethod
    def _number_or_word(cls, data: Any, validated: Callable[[Any], Any]) -> Any:
        try:
            return validated(data)
        except ValidationError:
            raise ValueError("it must be a number from 0 to 1, or 'adaptive'") from None

    @model_validator(mode="before")
    @classmethod
    def _terms_by_name(cls, data: Any) -> Any:
        terms = data.get("terms") if isinstance(data, Mapping) else None
        if isinstance(terms, list | tuple):
            terms = _named(terms)
        if not isinstance(terms, Mapping):
            return data
        kept = {name: term for name, term in terms.items() if term is not None}
        named = {
            name: {"loss": name, **term} if isinstance(term, Mapping) and name in LOSSES else term
            for name, term in kept.items()
        }
        return {**data, "terms": named}

    @property
    def critic(self) -> str | None:
        """The critic that this row reads and trains, named after whose value it is."""
        return None if self.value_term is None else self.script.rollout.name.lower()

    @property
    def value_term(self) -> Term | None:
        return next((term for term in self.terms.values() if term.of_critic), None)

    @property
    def reads(self) -> frozenset[str]:
        """Which fields of `LossInputs` any term reads."""
        return frozenset().union(*(term.asks for term in self.terms.values()))

    @property
    def estimator(self) -> Estimator | None:
        """
        Raises:
            UserError: there is no such estimator.
        """
        if self.advantage is None:
            return None
        found: Estimator = resolve(self.advantage, ESTIMATORS, "algorithm.advantage")
        return found

    @property
    def grouped(self) -> bool:
        """Whether the advantage compares the members of a group."""
        return self.estimator is not None and self.estimator.grouped

    @property
    def members_alike(self) -> bool:
        """Whether the members that are compared share their roll-in."""
        return self.grouped and self.help.shared

    @property
    def needs_reward(self) -> bool:
        """Whether episodes are scored by a reward."""
        estimated = self.estimator is not None and self.estimator.needs_reward
        return estimated or self.script.helper is Author.PAST  # of which only successes are kept

    @property
    def needs_reference(self) -> bool:
        """Whether texts are scored by the policy's frozen start."""
        reads = self.reads & {"reference_logprobs", "reference_log_ratios"}
        return self.needs_reward or self.paired or bool(reads)

    @property
    def kl_penalty(self) -> Literal["reward", "loss"] | None:
        """Where the KL penalty goes: into the rewards, into the loss, or nowhere."""
        if any(term.penalizes_kl for term in self.terms.values()):
            return "loss"
        return "reward" if self.estimator is not None and self.estimator.reads_kl else None

    @property
    def paired(self) -> bool:
        """Whether it learns from pairs of whole texts."""
        return self.estimator is not None and self.estimator.paired

    @property
    def from_pairs(self) -> bool:
        """Whether the episodes are the preferred and the rejected texts of the data."""
        return self.paired and self.script.rollout is Author.REFERENCE

    @property
    def scores_prompts(self) -> bool:
        """Whether a term scores after the bare prompt what was written after a hint."""
        return self.script.hinted and any(t.view is View.PROMPT for t in self.terms.values())

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """The tiers of its hints, which are tried one after another."""
        return () if self.script.hint is None else self.script.hint.tiers

    @property
    def tries(self) -> int:
        """How often a group may be written again within an update, at most."""
        return len(self.tiers) or (self.help.length.tries if self.help.length.by == "trial" else 1)

    @property
    def distills(self) -> bool:
        """Whether it ever learns from the guide's probabilities."""
        return any("guide_distribution" in term.reads and term.ever for term in self.terms.values())

    @property
    def reads_guide_scores(self) -> bool:
        """Whether it learns from how probable the guide finds the texts that were written."""
        return self.estimator is not None and self.estimator.reads_guide

    @property
    def reads_branches(self) -> bool:
        """Whether its advantage values states by texts that go on from them."""
        return self.estimator is not None and self.estimator.reads_branches

    @property
    def foreseen(self) -> bool:
        """Whether its help is known before the updates that come before it are over."""
        return self.help.foreseen and self.script.helper is not Author.PAST

    @property
    def asks_for_texts(self) -> bool:
        """Whether a guide writes anything."""
        return Author.GUIDE in {*self.script.authors, self.examples}

    @property
    def needs_guide(self) -> bool:
        """Whether a guide writes a part or is learned from."""
        return self.asks_for_texts or self.distills or self.reads_guide_scores


def _named(terms: list[Any] | tuple[Any, ...]) -> dict[str, Any]:
    """Terms of a list, each under the name of its loss, with a number where several have the same."""
    found: dict[str, Any] = {}
    for said in terms:
        term = {"loss": said} if isinstance(said, str) else said
        loss = term.get("loss", "") if isinstance(term, Mapping) else getattr(term, "loss", "")
        stem = name = str(loss).rpartition(":")[2]
        while name in found:
            name = f"{stem}_{len(found) + 1}"
        found[name] = term
    return found
