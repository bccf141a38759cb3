"""Loss terms: what an algorithm minimizes is a weighted sum of them, and each is one pure function.

A loss function names what it reads, one parameter for each field of `LossInputs`; its other parameters are the
term's options. So what a run must provide is known before any model loads, and a loss of your own is one function
in one file::

    def cautious(logprobs, advantages, mask, normalizer, *, margin=0.0):
        kept = mask & (advantages > margin)
        return -torch.where(kept, logprobs * advantages, 0.0).sum() / normalizer

named from a recipe as ``terms: {policy: {loss: mine.py:cautious, options: {margin: 0.1}}}``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from jaxtyping import Bool, Float, UInt8
from pydantic import Field
from torch import Tensor

from rlgf.algorithms.functions import misfit, parameters
from rlgf.algorithms.script import Span, View
from rlgf.objectives import losses
from rlgf.registry import resolve
from rlgf.schedules import Schedule, constant
from rlgf.strict import NamedConfig, Strict

Selector = Callable[..., Tensor]

SELECTORS: Mapping[str, Selector] = {
    "top_entropy": losses.top_entropy,
    "uncertainty": losses.uncertainty,
    "finished": losses.finished,
}

SELECTABLE = frozenset({"mask", "author", "finished", "logprobs", "old_logprobs", "entropy", "advantages"})
"""The fields of `rlgf.algorithms.terms.LossInputs` that a selector may read."""


class Selection(NamedConfig):
    """Which of the tokens that it reads a term learns from; in a recipe a bare name is short for one without options.

    A selector gives a weight for each token. It names what it reads, one parameter for each, and its other parameters
    are options; your own is one function in one file::

        def improbable(logprobs, *, below=0.1):
            return (logprobs.exp() < below).float()

    named from a recipe as ``select: {name: mine.py:improbable, options: {below: 0.05}}``.
    """

    name: str
    """A name of `SELECTORS`, or your own function as `file.py:function`."""

    @property
    def function(self) -> Selector:
        """
        Raises:
            UserError: there is no such selector.
        """
        found: Selector = resolve(self.name, SELECTORS, "the selector")
        return found

    @property
    def reads(self) -> frozenset[str]:
        """Which fields of `LossInputs` it reads."""
        return parameters(self.function) & SELECTABLE

    def misfit(self, term: str) -> str | None:
        """Why its function cannot be called as the term says, in a clause; None where it can."""
        what, where = f"the selector '{self.name}'", f"the term '{term}'"
        return misfit(resolve(self.name, SELECTORS, "the selector"), self.options, what, where, SELECTABLE)


@dataclass(frozen=True)
class LossInputs:
    """What a loss function may read of one micro-batch; None is what no term of the run asked for.

    A loss over tokens is a sum over ``mask`` divided by ``normalizer``, one over pairs a sum over the N pairs divided
    by it. The normalizer counts the whole optimizer step, so that the gradient does not depend on micro-batches.
    """

    normalizer: float
    """How many tokens, or pairs, the term reads in the whole optimizer step, with those of all terms that weigh
    advantages where it is one of these."""
    mask: Bool[Tensor, "B T"]
    """The tokens that the term reads."""
    author: UInt8[Tensor, "B T"]
    """Who wrote each token, see `rlgf.types.Author`."""
    finished: Bool[Tensor, "B"] | None = None
    """Which texts their authors ended, rather than the length limit."""
    tokens: float = 1.0
    """How many tokens it reads alone, for what a loss reports as a mean over its own."""
    texts: float = 1.0
    """How many texts have a token that the term reads in the whole optimizer step: in place of the normalizer, for losses
    of whole texts."""
    kl_coefficient: float = 0.0
    """The weight of the row's KL penalty now. A loss that reads it is that penalty, which then leaves the rewards."""
    logprobs: Float[Tensor, "B T"] | None = None
    """Of each token under the policy, with its gradient."""
    old_logprobs: Float[Tensor, "B T"] | None = None
    """Of each token under the policy before the update."""
    importance: Float[Tensor, "B T"] | None = None
    """What each token weighs that another than the policy before the update drew for it, as vLLM or earlier weights did;
    None where nobody did. Advantages are multiplied by it already."""
    reference_logprobs: Float[Tensor, "B T"] | None = None
    advantages: Float[Tensor, "B T"] | None = None
    values: Float[Tensor, "B T"] | None = None
    """Of the state before each token, with the critic's gradient."""
    old_values: Float[Tensor, "B T"] | None = None
    returns: Float[Tensor, "B T"] | None = None
    entropy: Float[Tensor, "B T"] | None = None
    """Of the distribution that each token is drawn from, in nats, with its gradient."""
    distribution: Float[Tensor, "B T V"] | None = None
    """The policy's log-probability of each entry of the vocabulary, with its gradient, without top-k and top-p."""
    guide_distribution: Float[Tensor, "B T V"] | None = None
    """The guide's, for a guide that has probabilities and the policy's tokenizer."""
    reference_log_ratios: Float[Tensor, "N 2"] | None = None
    """log pi(y) / reference(y) of whole texts, the better text of each pair first, with its gradient."""
    old_log_ratios: Float[Tensor, "N 2"] | None = None
    """log pi(y) / old(y); old is the policy before the update."""
    difference: Float[Tensor, "N"] | None = None
    """How much better the first text is, as the advantage says."""


READABLE = frozenset(field.name for field in fields(LossInputs))
OF_PAIRS = frozenset({"reference_log_ratios", "old_log_ratios", "difference"})
OF_CRITIC = frozenset({"values", "old_values", "returns"})
OF_VOCABULARY = frozenset({"distribution", "guide_distribution"})
_ANYWHERE = frozenset({"mask", "normalizer", "tokens", "texts", "author"})
_OF_REFERENCES = _ANYWHERE | {"logprobs", "entropy"}

LossFunction = Callable[..., Tensor | tuple[Tensor, losses.Metrics]]

LOSSES: Mapping[str, LossFunction] = {
    "clipped_surrogate": losses.clipped_surrogate,
    "nll": losses.negative_log_likelihood,
    "policy_gradient": losses.policy_gradient,
    "clipped_surrogate_of_texts": losses.clipped_surrogate_of_texts,
    "shaped_importance": losses.shaped_importance,
    "shaped_ratio": losses.shaped_ratio,
    "dpo": losses.dpo,
    "rebel": losses.rebel,
    "advantage_regression": losses.advantage_regression,
    "kl": losses.kl_to_reference,
    "distillation": losses.distillation,
    "entropy": losses.negative_entropy,
    "value": losses.clipped_value,
}


class Term(Strict):
    """One summand of what an algorithm minimizes: ``weight * loss``, averaged over the tokens that it reads."""

    loss: str
    """A name of `LOSSES`, or your own function as `file.py:function`; default: the term's own name."""
    on: Span = Span.ROLLOUT
    weight: Schedule = constant(1.0)
    options: Mapping[str, Any] = {}
    """Parameters of the loss beyond what it reads."""
    select: Selection | None = Field(default=None, exclude_if=lambda select: select is None)
    """Which of its tokens it learns from, as a weight for each; default: all alike."""
    view: View = Field(default=View.WRITTEN, exclude_if=lambda view: view is View.WRITTEN)
    """Which prompt the policy is scored after, where texts are written after hints. The ratio of a loss is always to
    the probability that the token was sampled with."""

    @property
    def function(self) -> LossFunction:
        """
        Raises:
            UserError: there is no such loss.
        """
        found: LossFunction = resolve(self.loss, LOSSES, "the loss")
        return found

    @property
    def reads(self) -> frozenset[str]:
        """Which fields of `LossInputs` the loss reads."""
        return parameters(self.function) & READABLE

    @property
    def asks(self) -> frozenset[str]:
        """Which of them a run must provide: what the loss reads, and what chooses its tokens."""
        return self.reads if self.select is None else self.reads | self.select.reads

    @property
    def paired(self) -> bool:
        """Whether the loss is one over pairs of whole texts."""
        return bool(self.reads & OF_PAIRS)

    @property
    def of_critic(self) -> bool:
        """Whether the loss trains a critic."""
        return "values" in self.reads

    @property
    def scores_tokens(self) -> bool:
        """Whether the loss reads the policy's probabilities of the tokens that stand in the texts."""
        return bool(self.reads & {"logprobs", "reference_log_ratios", "old_log_ratios"})

    @property
    def penalizes_kl(self) -> bool:
        """Whether the loss is the row's KL penalty, which is then no part of the rewards."""
        return "kl_coefficient" in self.reads

    @property
    def weighs_advantages(self) -> bool:
        """Whether the loss weighs tokens by their advantage; such terms of one row make one mean together."""
        return "advantages" in self.reads

    @property
    def ever(self) -> bool:
        """Whether its weight is ever above 0."""
        return max(self.weight.start, self.weight.end) > 0

    def misfit(self, name: str) -> str | None:
        """Why its function cannot be called as the term says, in a clause; None where it can."""
        what, where = f"the loss '{self.loss}'", f"the term '{name}'"
        # What has this name may be anything yet.
        found = misfit(resolve(self.loss, LOSSES, "the loss"), self.options, what, where, READABLE)
        found = found or (None if self.select is None else self.select.misfit(name))
        if found is not None:
            return found
        for kind, also in ((OF_PAIRS, {"normalizer"}), (OF_CRITIC, _ANYWHERE)):
            if self.reads & kind and not self.reads <= kind | also:
                odd = ", ".join(sorted(self.reads - kind - also))
                return f"the loss '{self.loss}' of the term '{name}' reads {odd} beside {', '.join(sorted(self.reads & kind))}: make two terms of it"
        if self.select is not None and (self.paired or self.of_critic):
            return f"a selector weighs tokens that the policy learns from: leave 'select' out of the term '{name}'"
        if self.select is not None and "texts" in self.reads:
            return f"a selector weighs tokens, and the loss '{self.loss}' is one of whole texts: leave 'select' out of the term '{name}'"
        if self.on is Span.REFERENCES and not self.asks <= _OF_REFERENCES:
            odd = ", ".join(sorted(self.asks - _OF_REFERENCES))
            if self.select is not None and self.reads <= _OF_REFERENCES:
                what = f"the selector '{self.select.name}'"
            return f"{what} of {where} reads {odd}, and the references have none: set another 'on'"
        return None
