"""Makes a reward of a recipe's ``reward:`` section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from rlgf.errors import UserError
from rlgf.registry import instance_of, named_callable, resolve
from rlgf.rewards.base import Reward
from rlgf.rewards.composed import Composed, Term
from rlgf.rewards.scale import Scale
from rlgf.strict import Strict

REWARDS: Mapping[str, str] = {
    "sentiment": "rlgf.demo.sentiment:Sentiment",
    "judge": "rlgf.demo.judge:Judge",
    "length": "rlgf.rewards.texts:Length",
    "metric": "rlgf.rewards.texts:MetricReward",
    "verifier": "rlgf.rewards.verifier:Verifier",
    "math-verify": "rlgf.rewards.math:MathVerify",
    "discriminator": "rlgf.rewards.discriminator:Discriminator",
    "model": "rlgf.reward_models.rewards:ModelReward",
    "adapter": "rlgf.reward_models.rewards:AdapterReward",
}
"""Where each reward is, by name. The judge is for evaluation: a policy trained on it has no held-out judge left."""

Finite = Annotated[float, Field(allow_inf_nan=False)]


class TermConfig(Strict):
    """One term of a reward; in a recipe a bare number is short for its weight, a bare word for its name."""

    name: str | None = None
    """A reward's name; default: the name that the recipe gives the term."""
    weight: Finite = 1.0
    """0 logs a term without paying for it."""
    options: dict[str, Any] = {}


def _term(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    return {"weight": value} if isinstance(value, int | float) else value


def check_weights(terms: Mapping[str, TermConfig], given: Sequence[str]) -> None:
    """
    Raises:
        UserError: a term is of no reward that Python gives, or names one in the place of one of these.
    """
    for name, term in terms.items():
        if name not in given:
            raise UserError(
                f"'reward.terms' names '{name}', and the rewards given in Python are {', '.join(given)}: name one of these, or "
                "set 'reward' to null."
            )
        if term.name is not None or term.options:
            raise UserError(
                f"'reward.terms.{name}' names a reward, and the one of that name is given in Python: set its weight alone, such "
                f"as {name}: 0.5."
            )


class RewardConfig(Strict):
    """The pay for a text: one reward by its name, or several weighted terms.

    A name is one of ours, or your own as `module:attribute` or `file.py:attribute`. In a recipe the
    bare name is short for a reward without options.
    """

    name: str | None = None
    """None beside 'terms', or where Python gives the reward."""
    options: dict[str, Any] = {}
    terms: dict[str, Annotated[TermConfig, BeforeValidator(_term)]] | None = Field(default=None, min_length=1)
    normalize: bool = False
    """Whether rewards are paid less their running mean, over their running standard deviation."""
    clip: tuple[Finite, Finite] | None = None
    """The lowest and the highest reward that is paid, after normalizing."""

    @model_validator(mode="after")
    def _coherent(self) -> RewardConfig:
        if self.name is not None and self.terms is not None:
            raise ValueError("give exactly one of 'name' and 'terms'")
        if self.name is None and self.options:
            raise ValueError("'options' are those of 'name': give each of the 'terms' its own")
        if self.clip is not None and self.clip[0] >= self.clip[1]:
            raise ValueError(f"'clip' must be a lower and a higher number (it is {list(self.clip)})")
        return self

    @property
    def named(self) -> list[tuple[str, dict[str, Any]]]:
        """The name and the options of the reward, or of each term."""
        if self.terms is None:
            return [(str(self.name), self.options)]
        return [(term.name or key, term.options) for key, term in self.terms.items()]

    def build(self) -> Reward:
        """The reward, before it is scaled.

        Raises:
            UserError: there is no such reward, or an option is not known, is missing or does not fit.
        """
        if self.terms is None:
            assert self.name is not None, "checked above"
            return build_reward(self.name, self.options)
        return Composed(
            {
                key: Term(build_reward(term.name or key, term.options), term.weight)
                for key, term in self.terms.items()
            }
        )

    @property
    def scale(self) -> Scale:
        """A new scale, which has seen no rewards."""
        return Scale(normalize=self.normalize, clip=self.clip)


def fit_for(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What stays of a reward section when a later recipe is laid over it.

    One reward replaces terms, terms replace one reward, and another reward does not get the options of
    the one before.
    """
    gone = {"terms"} if "name" in new else {"name", "options"} if "terms" in new else set()
    if old.get("name") not in (None, new.get("name", old.get("name"))):
        gone |= {"options"}
    return {key: value for key, value in old.items() if key not in gone}


def build_reward(name: str, options: Mapping[str, Any]) -> Reward:
    """The reward of that name: a class is called with a recipe's options, a function is used as it is.

    Args:
        name: a key of ``REWARDS``, or ``module:attribute`` or ``file.py:attribute`` of your own.

    Raises:
        UserError: there is no such reward, or an option is not known, is missing or does not fit.
    """
    built: Reward = instance_of(named_reward(name, options), options, f"reward '{name}'")
    return built


def named_reward(name: str, options: Mapping[str, Any]) -> Any:
    """The class or function that a reward's name stands for. It is not called.

    Raises:
        UserError: there is no such reward, or it does not take these options.
    """
    return named_callable(name, options, REWARDS, "reward", "f(completions, **kwargs)")


def named_judge(name: str, options: Mapping[str, Any], setting: str) -> Any:
    """The same of a reward that needs no policy.

    Args:
        setting: how a message calls what names it, such as "'evaluation.judge'".

    Raises:
        UserError: as `named_reward`; or it is made from a policy, see `PolicyReadingReward`.
    """
    if hasattr(resolve(name, REWARDS, "reward"), "attach"):
        raise UserError(
            f"{setting} (it is '{name}') must be a reward that stands by itself, and this one is made from the policy of a "
            "run: choose another."
        )
    return named_reward(name, options)
