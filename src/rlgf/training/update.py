"""The optimizer's side of an update: epochs of minibatches of micro-batches."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from jaxtyping import Bool, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from rlgf import losses, seeding
from rlgf.algorithms import POLICY_LOSSES, Algorithm, PolicyTerms
from rlgf.errors import resolve
from rlgf.finite import require_finite, require_finite_metrics
from rlgf.guides.base import ScoringGuide
from rlgf.identity import FREE
from rlgf.models.batching import length_batches
from rlgf.models.critic import Critic
from rlgf.models.loading import LanguageModel
from rlgf.models.scoring import Tokens, response_outputs
from rlgf.rollout.sampling import Sampling, entropy, log_distribution, one_end, token_logprobs
from rlgf.rollout.scoring import score_logprobs
from rlgf.schedules import Schedule, constant
from rlgf.training import processes
from rlgf.training.pairs import learning_units, pair_terms
from rlgf.types import Author, Experience, Rollout


class UpdateConfig(BaseModel):
    """How an update turns experience into weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=2, ge=1)
    minibatch: int = Field(default=28, ge=1)
    """Episodes an optimizer step."""
    max_micro_tokens: Annotated[int, FREE] = Field(default=16_384, ge=1)
    """Tokens, padding included, of one forward and backward pass; bounds memory, changes no result."""
    learning_rate: Schedule = constant(1e-4)
    critic_learning_rate: Schedule | None = None
    """Default: the policy's."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_gradient_norm: float = Field(default=1.0, gt=0)
    """Of the policy and of each critic apart."""
    clip: float = Field(default=0.2, gt=0)
    value_clip: float = Field(default=0.2, gt=0)
    value_coef: Schedule = constant(0.5)
    entropy_coef: Schedule = constant(0.0)
    reference_coef: Schedule = constant(0.0)
    """Weight of the negative log-likelihood of the reference texts."""
    max_update_kl: float | None = Field(default=None, gt=0)
    """End an update early once a minibatch is this far from where the update began, in nats per token."""


@dataclass
class Updater:
    """Owns the optimizer of a policy and its critics."""

    policy: LanguageModel
    critics: Mapping[str, Critic]
    sampling: Sampling
    config: UpdateConfig
    seed: int
    guide: ScoringGuide | None = None
    """Needed by rows that distill."""
    updates: int | None = None
    """How many updates the run has, so that a warm-up of the learning rate counts the first one."""

    def __post_init__(self) -> None:
        # Models of one tokenizer can be padded to different widths.
        self.vocabulary = 1 + max(self.policy.tokenizer.get_vocab().values())
        self.parameters = {
            "policy": self.policy.trained,
            **{f"critic {name}": list(critic.parameters()) for name, critic in self.critics.items()},
        }
        self.optimizer = torch.optim.AdamW(
            [{"params": parameters} for parameters in self.parameters.values()],
            lr=0.0,
            weight_decay=self.config.weight_decay,
            fused=True,
        )

    @property
    def trained(self) -> list[torch.nn.Parameter]:
        """Everything that the optimizer moves."""
        return list(itertools.chain.from_iterable(self.parameters.values()))

    def update(
        self,
        experience: Experience,
        row: Algorithm,
        update: int = 0,
        progress: float = 0.0,
        references: Rollout | None = None,
    ) -> dict[str, float]:
        """All optimizer steps of one update.

        Args:
            references: the reference texts of the same samples, for ``reference_coef``.

        Returns:
            Metrics, averaged over the optimizer steps.

        Raises:
            UserError: a loss, a gradient, a weight or an output of the trained models is not finite; a step
                that would have brought it into the weights was not made.
        """
        self._set_learning_rates(progress)
        gathered: dict[str, list[float]] = defaultdict(list)
        units = learning_units(experience, row)
        if row.paired:
            gathered["pairs"].append(float(len(units)))
        if not len(units):
            return _means(gathered)
        if self.config.max_update_kl is not None:
            experience = self._with_beginning(experience, row)
        for metrics in self._steps(experience, row, units, update, progress, references):
            for name, value in metrics.items():
                gathered[name].append(float(value))
            if metrics.get("update_kl", 0.0) > (self.config.max_update_kl or float("inf")):
                break
        self._check_result(experience.rollout)
        return _means(gathered)

    def _steps(
        self,
        experience: Experience,
        row: Algorithm,
        units: Int[Tensor, "N K"],
        update: int,
        progress: float,
        references: Rollout | None,
    ) -> Iterator[dict[str, Tensor]]:
        """One optimizer step after another, with its metrics."""
        for epoch in range(self.config.epochs):
            order = torch.randperm(
                len(units), generator=seeding.generator(self.seed, "minibatches", update, epoch)
            )
            for chosen in order.split(max(1, self.config.minibatch // units.shape[1])):
                rows = units[chosen].flatten()
                minibatch = references[rows] if references is not None else None
                metrics = self.backward(experience[rows], row, progress, minibatch)
                require_finite_metrics(metrics)
                metrics["gradient_norm"] = self._step()
                yield metrics

    def _with_beginning(self, experience: Experience, row: Algorithm) -> Experience:
        """With the log-probabilities before the update of texts that others wrote, which ``max_update_kl``
        compares with; losses that compare with them themselves have them already."""
        rollout = experience.rollout
        others = experience.policy_mask & ~rollout.written_by(Author.POLICY)
        known = row.pair_loss.reads_old if row.pair_loss is not None else row.policy_loss != "nll"
        if known or not others.any():
            return experience
        scored = score_logprobs(
            self.policy.model, rollout, self.sampling, self.policy.end_ids, self.config.max_micro_tokens
        )
        return replace(experience, old_logprobs=torch.where(others, scored, experience.old_logprobs))

    @torch.no_grad()
    def _check_result(self, rollout: Rollout) -> None:
        """Make sure that what an update ends in can write and be saved: weights, and outputs for one text.

        Raises:
            UserError: names what is not finite.
        """
        for name, parameters in self.parameters.items():
            for parameter in parameters:
                require_finite(f"the weights of the {name}", parameter)
        tokens = Tokens.of(rollout[torch.tensor([0])]).to(self.policy.model.device)
        shared = any(critic.reads_policy_hidden for critic in self.critics.values())
        logits, hidden = response_outputs(self.policy.model, tokens, hidden=shared)
        said = token_logprobs(logits, tokens.response_ids, Sampling(), ())
        require_finite("the trained policy's log-probabilities", said, tokens.response_mask)
        for name, critic in self.critics.items():
            require_finite(f"the values of the critic {name}", critic(tokens, hidden), tokens.response_mask)

    def _set_learning_rates(self, progress: float) -> None:
        step = 1 / self.updates if self.updates else 0.0
        policy_rate = self.config.learning_rate.at(progress, step)
        critic_rate = (self.config.critic_learning_rate or self.config.learning_rate).at(progress, step)
        for group, name in zip(self.optimizer.param_groups, self.parameters, strict=True):
            group["lr"] = policy_rate if name == "policy" else critic_rate

    def backward(
        self,
        batch: Experience,
        row: Algorithm,
        progress: float = 0.0,
        references: Rollout | None = None,
    ) -> dict[str, Tensor]:
        """Add the gradient of one optimizer step's loss to the parameters, micro-batch by micro-batch.

        The loss is ``policy loss + rollin_coef * roll-in loss + KL coefficient * KL penalty (where the row has
        it in the loss) + distill_coef * divergence from the guide
        + value_coef * value loss - entropy_coef * entropy + reference_coef * NLL of the references``,
        each averaged over the tokens that it reads; a policy loss and a roll-in loss that both weigh by an
        advantage are averaged together, over the tokens of both.

        Args:
            batch: of a row of pairs, pair behind pair with the better text first (`learning_units`).

        Returns:
            The losses and what they report.
        """
        metrics: dict[str, Tensor] = defaultdict(lambda: torch.zeros(()))
        critic = None if row.critic is None else self.critics[row.critic]
        shared = critic is not None and critic.reads_policy_hidden
        counts = _Counts.of(batch)
        policy_reads = batch.policy_mask | batch.rollin_mask
        if shared:
            policy_reads = policy_reads | batch.value_mask

        for micro, tokens in self._micro_batches(batch, policy_reads, 2 if row.paired else 1):
            logits, hidden = response_outputs(self.policy.model, tokens, hidden=shared)
            loss = self._policy_loss(micro, tokens, logits, row, counts, progress, metrics)
            if critic is not None and shared:
                values = critic(tokens, hidden)
                loss = loss + self._value_loss(micro, values, counts.value, progress, metrics)
            loss.backward()
        if critic is not None and not shared:
            for micro, tokens in self._micro_batches(batch, batch.value_mask):
                loss = self._value_loss(micro, critic(tokens, None), counts.value, progress, metrics)
                loss.backward()
        if references is not None:
            self._reference_loss(references, progress, metrics)
        processes.sum_gradients(self.trained)
        return processes.sum_numbers(dict(metrics))

    def _step(self) -> Tensor:
        """Clip and apply the gradients; returns the norm of the policy's."""
        norms = {
            name: torch.nn.utils.clip_grad_norm_(parameters, self.config.max_gradient_norm)
            for name, parameters in self.parameters.items()
        }
        for name, norm in norms.items():
            require_finite(f"the gradient of the {name}", norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norms["policy"]

    def _policy_loss(
        self,
        micro: Experience,
        tokens: Tokens,
        logits: Tensor,
        row: Algorithm,
        counts: _Counts,
        progress: float,
        metrics: dict[str, Tensor],
    ) -> Tensor:
        loss = self._surrogates(micro, tokens, logits, row, counts, progress, metrics)
        mask = micro.policy_mask[:, : logits.shape[1]].to(logits.device)
        distill_coef = row.distill_coef.at(progress)
        # A warm-up from 0 leaves a row without a policy loss nothing else to differentiate.
        if distill_coef or row.policy_loss is None:
            divergence, found = self._distillation(tokens, logits, row.jsd_beta, mask, counts.policy)
            _accumulate(metrics, found)
            loss = loss + distill_coef * divergence
        entropy_coef = self.config.entropy_coef.at(progress)
        if entropy_coef:
            bonus, found = losses.entropy_bonus(
                entropy(logits, self.sampling, self.policy.end_ids, tokens.kept_mask(logits.shape[-1])),
                mask,
                counts.policy,
            )
            _accumulate(metrics, found)
            loss = loss - entropy_coef * bonus
        return loss

    def _surrogates(
        self,
        micro: Experience,
        tokens: Tokens,
        logits: Tensor,
        row: Algorithm,
        counts: _Counts,
        progress: float,
        metrics: dict[str, Tensor],
    ) -> Tensor:
        """The row's policy loss, its roll-in loss and the KL penalty, each over the tokens that it reads."""
        total = torch.zeros((), device=logits.device)
        limited = self.config.max_update_kl is not None
        if row.policy_loss is None and row.rollin_loss is None and not limited:
            return total
        length, device = logits.shape[1], logits.device
        kept = tokens.kept_mask(logits.shape[-1])
        logprobs = token_logprobs(
            logits, tokens.response_ids, self.sampling, self.policy.end_ids, kept, tokens.given
        )
        old_logprobs = micro.old_logprobs[:, :length].to(device)
        advantages = micro.advantages[:, :length].to(device)
        policy_loss, reported = row.policy_loss, set[str]()
        if row.pair_loss is not None:
            pairs = pair_terms(micro, logprobs, row.pair_beta, counts.pairs)
            total, found = row.pair_loss.compute(pairs)
            _accumulate(metrics, {"policy_loss": total.detach(), **found})
            policy_loss = None
        rollin_coef = row.rollin_coef.at(progress)
        for prefix, name, mask, count, weight in (
            ("", policy_loss, micro.policy_mask, counts.policy, 1.0),
            ("rollin_", row.rollin_loss, micro.rollin_mask, counts.rollin, rollin_coef),
        ):
            if name is not None:
                mask = mask[:, :length].to(device)
                terms = PolicyTerms(logprobs, old_logprobs, advantages, mask, self.config.clip, count)
                loss, found = resolve(name, POLICY_LOSSES, f"algorithm.{prefix or 'policy_'}loss")(terms)
                metrics[f"{prefix or 'policy_'}loss"] += loss.detach().cpu()
                _accumulate(metrics, {prefix + key: value for key, value in found.items()})
                total = total + (weight * count / counts.learned if row.learns_as_one else weight) * loss
                reported |= {prefix + key for key in found}
        if micro.kl_coefficient:
            mask = micro.policy_mask[:, :length].to(device)
            reference = micro.reference_logprobs[:, :length].to(device)
            penalty, found = losses.kl_to_reference(logprobs, old_logprobs, reference, mask, counts.policy)
            _accumulate(metrics, found)
            total = total + micro.kl_coefficient * penalty
        if limited and "update_kl" not in reported:
            mask = micro.policy_mask[:, :length].to(device)
            gone = losses.update_kl(logprobs, old_logprobs, mask, counts.policy)
            _accumulate(metrics, {"update_kl": gone})
        return total

    def _distillation(
        self, tokens: Tokens, logits: Tensor, jsd_beta: float, mask: Tensor, count: float
    ) -> tuple[Tensor, losses.Metrics]:
        """The divergence of the policy from the guide, both without top-k and top-p."""
        assert self.guide is not None, "checked when the run was set up"
        ends, end_id = self.policy.end_ids, self.policy.end_id
        guide_ends = set(getattr(self.guide, "end_ids", ends))
        # A token that ends the guide's texts alone is none that the guide could have the policy go on from.
        policy = log_distribution(
            logits[..., : self.vocabulary], Sampling(temperature=self.sampling.temperature), ()
        )
        policy = one_end(policy, ends, end_id, guide_ends - set(ends))
        guide = self.guide.log_distribution(tokens)[..., : self.vocabulary]
        guide = one_end(guide, guide_ends.union(ends), end_id)
        # A token that the policy may not draw yet is none that the guide could ask it for.
        possible = Sampling(min_tokens=self.sampling.min_tokens)
        policy, guide = (log_distribution(side, possible, (end_id,)) for side in (policy, guide))
        return losses.distillation(policy, guide, mask, jsd_beta, count)

    def _value_loss(
        self, micro: Experience, values: Tensor, count: float, progress: float, metrics: dict[str, Tensor]
    ) -> Tensor:
        length = values.shape[1]
        loss, found = losses.clipped_value(
            values,
            micro.values[:, :length].to(values.device),
            micro.returns[:, :length].to(values.device),
            micro.value_mask[:, :length].to(values.device),
            self.config.value_clip,
            count,
        )
        _accumulate(metrics, found)
        return self.config.value_coef.at(progress) * loss

    def _reference_loss(self, references: Rollout, progress: float, metrics: dict[str, Tensor]) -> None:
        count = float(references.response_mask.sum())
        references = references[processes.every_nth(torch.arange(len(references)))]
        prompts = references.prompt_mask.sum(dim=1)
        for rows in length_batches(prompts, references.lengths, self.config.max_micro_tokens):
            tokens = Tokens.of(references[rows]).to(self.policy.model.device)
            logits, _ = response_outputs(self.policy.model, tokens)
            logprobs = token_logprobs(
                logits, tokens.response_ids, self.sampling, self.policy.end_ids, given=tokens.given
            )
            loss, found = losses.negative_log_likelihood(logprobs, tokens.response_mask, count)
            _accumulate(metrics, {"reference_nll": found["nll"]})
            (self.config.reference_coef.at(progress) * loss).backward()

    def _micro_batches(
        self, batch: Experience, reads: Bool[Tensor, "B T"], together: int = 1
    ) -> Iterator[tuple[Experience, Tokens]]:
        """Micro-batches of the rows that a loss reads, each cut behind the last token it reads.

        A causal model's output does not depend on later tokens, so the rest need not be run.

        Args:
            together: how many rows, one behind the other, must not be parted.
        """
        units = torch.arange(len(batch)).view(-1, together)
        chosen = units[processes.every_nth(reads[units].any(dim=2).any(dim=1).nonzero().squeeze(1))]
        if not len(chosen):
            return
        positions = torch.arange(1, reads.shape[1] + 1)
        ends = (reads * positions).amax(dim=1)[chosen].amax(dim=1)
        prompts = batch.rollout.prompt_mask.sum(dim=1)[chosen].amax(dim=1)
        for picked in length_batches(prompts, ends, self.config.max_micro_tokens // together):
            micro = batch[chosen[picked].flatten()]
            tokens = Tokens.of(micro.rollout).cut(int(ends[picked].max()))
            yield micro, tokens.to(self.policy.model.device)


@dataclass(frozen=True)
class _Counts:
    """How many tokens each loss reads in a whole optimizer step, 1 where it reads none; and its pairs."""

    policy: float
    rollin: float
    learned: float
    """By the policy loss and the roll-in loss together."""
    value: float
    pairs: float

    @staticmethod
    def of(batch: Experience) -> _Counts:
        learned = batch.policy_mask | batch.rollin_mask
        masks = (batch.policy_mask, batch.rollin_mask, learned, batch.value_mask)
        policy, rollin, both, value = (max(float(mask.sum()), 1.0) for mask in masks)
        return _Counts(policy, rollin, both, value, pairs=len(batch) / 2)


def _accumulate(metrics: dict[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name, value in found.items():
        metrics[name] = metrics[name] + value.cpu()


def _means(gathered: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: sum(values) / len(values) for name, values in gathered.items()}
