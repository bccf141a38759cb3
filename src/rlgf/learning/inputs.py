"""What the loss terms of an optimizer step read: which tokens, how many, and the tensors of a micro-batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rlgf.algorithms import Algorithm, LossInputs, Selection, Span, Term
from rlgf.algorithms.terms import OF_VOCABULARY
from rlgf.errors import UserError
from rlgf.guides.base import ScoringGuide
from rlgf.models import sharding
from rlgf.models.encoder_decoder import decoder_start
from rlgf.models.forward import Tokens, base_hidden, response_outputs, trunk_of
from rlgf.models.language_model import LanguageModel
from rlgf.models.response_scores import response_scores, scores_of
from rlgf.models.sampling import Sampling, log_distribution, one_end
from rlgf.objectives.losses import Metrics
from rlgf.types import Experience, Rollout


def read_by(term: Term, rollout: Rollout, row: Algorithm) -> Bool[Tensor, "B T"]:
    """The tokens of a rollout that a term reads; of the references all are read."""
    if term.on in (Span.WHOLE, Span.REFERENCES):
        return rollout.authored
    return rollout.written_by(row.script.author(term.on))


def read_by_any(terms: Iterable[Term], rollout: Rollout, row: Algorithm) -> Bool[Tensor, "B T"]:
    """The tokens that at least one of several terms reads."""
    read = torch.zeros_like(rollout.response_mask)
    for term in terms:
        read = read | read_by(term, rollout, row)
    return read


@dataclass(frozen=True)
class StepTerm:
    """A term in one optimizer step."""

    name: str
    term: Term
    weight: float
    normalizer: float
    tokens: float
    texts: float

    def __call__(self, inputs: LossInputs, mask: Bool[Tensor, "B T"]) -> tuple[Tensor, Metrics]:
        """The weighted loss of a micro-batch, and its numbers for the log: ``<term>_loss``, unweighted, and what the
        loss reports, after the term's name unless that is 'policy'.

        Args:
            mask: the tokens that it reads, on the CPU.

        Raises:
            UserError: a loss of the user's own returned something else than that.
        """
        there = mask.to(inputs.mask.device)
        inputs = replace(inputs, mask=there, normalizer=self.normalizer, tokens=self.tokens, texts=self.texts)
        if self.term.select is not None:
            inputs = selected(inputs, self.term.select)
        read = {name: getattr(inputs, name) for name in self.term.reads}
        found = self.term.function(**read, **self.term.options)
        loss, reported = _checked_loss(found, self.term.loss, learns=bool(mask.any()))
        prefix = "" if self.name == "policy" else f"{self.name}_"
        logged = {f"{prefix}{key}": value.detach() for key, value in reported.items()}
        return self.weight * loss, {**logged, f"{self.name}_loss": loss.detach()}


def _checked_loss(found: Any, name: str, *, learns: bool) -> tuple[Tensor, Mapping[str, Tensor]]:
    """What a loss returned, and what it reports.

    Args:
        learns: whether there are tokens to learn from, so that a gradient is to be expected.

    Raises:
        UserError: it is not a tensor of one number, has no gradient, or reports something else than tensors.
    """
    parts = found if isinstance(found, tuple) else (found, {})
    loss, reported = parts if len(parts) == 2 else (None, None)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shown = f"a tensor of {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"{found!r:.60}"
        raise UserError(
            f"the loss '{name}' returned {shown}: it must return a tensor of one number, such as a sum over tokens / "
            "normalizer, or that and a mapping of names to tensors to log."
        )
    if not isinstance(reported, Mapping) or not all(
        isinstance(value, Tensor) and value.numel() == 1 for value in reported.values()
    ):
        raise UserError(
            f"the loss '{name}' must report a mapping of names to tensors of one number (it is {reported!r:.60})."
        )
    if learns and not loss.requires_grad:
        raise UserError(
            f"the loss '{name}' returned a number without a gradient, from which nothing is learned: leave out detach() "
            "and item(); where it has nothing to teach, let it return logprobs.sum() * 0."
        )
    return loss.reshape(()), reported


def selected(inputs: LossInputs, select: Selection) -> LossInputs:
    """The inputs of a loss, whose gradient at each token is multiplied by the weight that a selector gives the token.

    Raises:
        UserError: the selector returned something else than one finite weight of 0 or more for each token.
    """
    with torch.no_grad():
        weights = select.function(**{name: getattr(inputs, name) for name in select.reads}, **select.options)
    if not isinstance(weights, Tensor) or weights.shape != inputs.mask.shape:
        raise UserError(
            f"the selector '{select.name}' must return a tensor of {tuple(inputs.mask.shape)}, a weight for each token."
        )
    weights = torch.where(inputs.mask, weights.detach().float(), 0.0)
    if not bool(((weights >= 0) & weights.isfinite()).all()):
        raise UserError(f"the selector '{select.name}' must return finite weights of 0 or more.")
    learned = {"logprobs": weights, "entropy": weights, "distribution": weights[..., None]}
    weighed: dict[str, Any] = {
        name: _with_gradient_times(value, weight)
        for name, weight in learned.items()
        if (value := getattr(inputs, name)) is not None
    }
    # Where a weight is 0 a gradient may be anything, and 0 times that need not be 0.
    return replace(inputs, mask=inputs.mask & (weights > 0), **weighed)


def _with_gradient_times(value: Tensor, weight: Tensor) -> Tensor:
    """The same numbers, whose gradient is multiplied by a weight on its way back."""
    if not value.requires_grad:
        return value
    same = value.view_as(value)
    same.register_hook(lambda gradient: gradient * weight)
    return same


def step_terms(
    row: Algorithm, batch: Experience, references: Rollout | None, progress: float
) -> list[StepTerm]:
    """The terms of a row that weigh anything now; where none does, those that ever do.

    Args:
        batch: the episodes of the whole optimizer step.
    """
    # Terms that weigh tokens by their advantage are one sum over the tokens of all of them.
    weighing = (term for term in row.terms.values() if term.weighs_advantages)
    together = read_by_any(weighing, batch.rollout, row).sum()
    found = []
    for name, term in row.terms.items():
        rollout = references if term.on is Span.REFERENCES else batch.rollout
        if rollout is None:
            continue
        read = read_by(term, rollout, row)
        tokens = float(read.sum())
        count = float(together) if term.weighs_advantages else tokens
        if term.paired and batch.pairs is not None:
            count = float(len(batch.pairs))
        idle = term.penalizes_kl and not batch.kl_coefficient
        weight = 0.0 if idle else term.weight.at(progress)
        texts = float(read.any(dim=1).sum())
        found.append(StepTerm(name, term, weight, max(count, 1.0), max(tokens, 1.0), max(texts, 1.0)))
    return [term for term in found if term.weight] or [term for term in found if term.term.ever]


@dataclass(frozen=True)
class InputReader:
    """Computes what the terms of a step ask for, from a model's outputs."""

    policy: LanguageModel
    sampling: Sampling
    vocabulary: int
    """How many tokens the policy's tokenizer has; models of one tokenizer can be padded to different widths."""
    guide: ScoringGuide | None

    def read(
        self, names: frozenset[str], micro: Experience, tokens: Tokens, *, hidden: bool = False
    ) -> tuple[LossInputs, Float[Tensor, "B T D"] | None]:
        """The inputs of the terms over the policy's outputs, from one pass.

        Args:
            names: fields of `LossInputs` that any of them reads.
            hidden: whether to return the last hidden states, too.
        """
        length, device = tokens.response_ids.shape[1], tokens.response_ids.device
        author = micro.rollout.author[:, :length].to(device)
        authored = micro.rollout.authored[:, :length].to(device)

        def cut(tensor: Tensor | None, name: str) -> Tensor | None:
            return None if tensor is None or name not in names else tensor[:, :length].to(device)

        # Before the policy's own pass, since the guide may be the same model without its adapter.
        guide = self._guided(micro.rollout, tokens) if "guide_distribution" in names else None
        run = partial(self._outputs, names, tokens, guide, hidden=hidden)
        outputs, states = sharding.run(self.policy.model, run)
        found: dict[str, Tensor | None] = {
            **outputs,
            "old_logprobs": cut(micro.old_logprobs, "old_logprobs"),
            "reference_logprobs": cut(micro.scored.reference_logprobs, "reference_logprobs"),
            "advantages": cut(micro.advantages, "advantages"),
            "importance": cut(micro.importance, "importance"),
        }
        for name, base in (
            ("reference_log_ratios", micro.scored.reference_logprobs),
            ("old_log_ratios", micro.old_logprobs),
        ):
            if name in names:
                logprobs = outputs["logprobs"]
                assert logprobs is not None, "asked for where a ratio is read"
                assert base is not None, "scored for rows that learn from pairs"
                ratio = torch.where(authored, logprobs - base[:, :length].to(device), 0.0)
                found[name] = ratio.sum(dim=1).view(-1, 2)
        if micro.difference is not None:
            found["difference"] = micro.difference.to(device)
        inputs = LossInputs(
            normalizer=1.0,
            mask=authored,
            author=author,
            finished=micro.rollout.finished.to(device),
            tokens=1.0,
            texts=1.0,
            kl_coefficient=micro.kl_coefficient,
            **found,
        )
        return inputs, states

    def _outputs(
        self, names: frozenset[str], tokens: Tokens, guide: Tensor | None, *, hidden: bool
    ) -> tuple[dict[str, Tensor | None], Float[Tensor, "B T D"] | None]:
        """One pass of the policy: the fields of `LossInputs` that come from it, and its last hidden states.

        Args:
            guide: what the guide says of the same tokens, where that is asked for.
        """
        model, ends, with_entropy = self.policy.model, self.policy.end_ids, "entropy" in names
        scored = names & {"logprobs", "entropy", "reference_log_ratios", "old_log_ratios"}
        if names & OF_VOCABULARY:
            logits, states = response_outputs(model, tokens, hidden=hidden)
            found: dict[str, Tensor | None] = {}
            found["distribution"], found["guide_distribution"] = self.distributions(logits, guide)
            if scored:
                found["logprobs"], found["entropy"] = scores_of(
                    logits, tokens, self.sampling, ends, with_entropy
                )
            return found, states
        if scored:
            scores = response_scores(model, tokens, self.sampling, ends, with_entropy, hidden=hidden)
            return {"logprobs": scores.logprobs, "entropy": scores.entropy}, scores.hidden
        return {}, base_hidden(trunk_of(model), tokens, decoder_start(model)) if hidden else None

    def _guided(self, rollout: Rollout, tokens: Tokens) -> Float[Tensor, "B T V"]:
        """What the guide says of the tokens of a rollout, after the prompts as it reads them."""
        assert self.guide is not None, "checked when the run was set up"
        if rollout.guide_ids is not None:
            length, device = tokens.response_ids.shape[1], tokens.response_ids.device
            tokens = Tokens.of(rollout.told).cut(length).to(device)
        return self.guide.log_distribution(tokens)

    def distributions(self, logits: Tensor, guide: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The log-probabilities of the policy and of the guide, both without top-k and top-p.

        Args:
            guide: see `ScoringGuide.log_distribution`; None where no loss reads it.
        """
        ends, end_id = self.policy.end_ids, self.policy.end_id
        guide_ends = set(ends if guide is None else getattr(self.guide, "end_ids", ends))
        # A token that ends the guide's texts alone is none that the guide could have the policy go on from.
        # Special tokens that were added to the tokenizer may be more than one of them has in its head.
        widths = logits.shape[-1], (logits if guide is None else guide).shape[-1]
        shared = min(self.vocabulary, *widths)
        policy = log_distribution(logits[..., :shared], Sampling(temperature=self.sampling.temperature), ())
        policy = one_end(policy, ends, end_id, guide_ends - set(ends))
        # A token that the policy may not draw yet is none that the guide could ask it for.
        possible = Sampling(min_tokens=self.sampling.min_tokens)
        policy = log_distribution(policy, possible, (end_id,))
        if guide is None:
            return policy, None
        guide = one_end(guide[..., :shared], guide_ends.union(ends), end_id)
        return policy, log_distribution(guide, possible, (end_id,))


def value_inputs(micro: Experience, values: Float[Tensor, "B T"]) -> LossInputs:
    """The inputs of the term over a critic's values."""
    length, device = values.shape[1], values.device

    def cut(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[:, :length].to(device)

    author = micro.rollout.author[:, :length].to(device)
    return LossInputs(
        normalizer=1.0,
        mask=micro.rollout.authored[:, :length].to(device),
        author=author,
        values=values,
        old_values=cut(micro.scored.values),
        returns=cut(micro.returns),
    )
