"""The optimizer's side of an update: epochs of minibatches of micro-batches."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlgf import distributed, seeding
from rlgf.algorithms import Algorithm, LossInputs, Span
from rlgf.errors import UserError
from rlgf.finite import require_finite
from rlgf.guides.base import FollowingGuide, ScoringGuide
from rlgf.learning.inputs import InputReader, StepTerm, read_by, read_by_any, step_terms, value_inputs
from rlgf.learning.micro_batches import (
    Moved,
    check_result,
    dealt_out,
    micro_batches,
    minibatches,
    passes,
    with_beginning,
)
from rlgf.learning.rates import LearningRates, SchedulerFactory, UpdateConfig
from rlgf.models import sharding
from rlgf.models.critic import Critic
from rlgf.models.forward import Tokens
from rlgf.models.language_model import LanguageModel
from rlgf.models.sampling import Sampling
from rlgf.objectives import losses
from rlgf.types import Experience, Rollout, Scored

OptimizerFactory = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
"""Makes an optimizer of one group of parameters for the policy and one for each critic after it; the learning rates
are set before each update."""

_MEASURED = frozenset({"pairs", "update_kl", "first_step_kl", "gradient_norm"})
"""What an update measures itself, beside the losses."""


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

    make_optimizer: OptimizerFactory | None = None
    """Default: AdamW."""
    make_scheduler: SchedulerFactory | None = None
    """Default: the configuration's learning rates."""

    def __post_init__(self) -> None:
        vocabulary = 1 + max(self.policy.tokenizer.get_vocab().values())
        self.reader = InputReader(self.policy, self.sampling, vocabulary, self.guide)
        self.parameters = {
            "policy": self.policy.trained,
            **{f"critic {name}": critic.trained for name, critic in self.critics.items()},
        }
        groups = [{"params": parameters} for parameters in self.parameters.values()]
        decay = self.config.weight_decay
        self.optimizer = (
            torch.optim.AdamW(groups, lr=0.0, weight_decay=decay, fused=True)
            if self.make_optimizer is None
            else _made(self.make_optimizer(groups))
        )
        self.rates = LearningRates(
            self.optimizer,
            self.config,
            self.updates,
            self.make_scheduler,
            own=self.make_optimizer is not None,
        )

    @property
    def trained(self) -> list[torch.nn.Parameter]:
        """Everything that the optimizer moves."""
        return list(itertools.chain.from_iterable(self.parameters.values()))

    @property
    def following(self) -> list[Tensor]:
        """What follows the policy, update by update."""
        return list(self.guide.moving) if isinstance(self.guide, FollowingGuide) else []

    @property
    def moved(self) -> list[Tensor]:
        """Everything that an update moves."""
        return [*self.trained, *self.following]

    @torch.no_grad()
    def put_back(self, moved: Sequence[Tensor], optimizer: dict[str, Any]) -> None:
        """Let everything that an update moves, and the optimizer, be as they were."""
        for tensor, before in zip(self.moved, moved, strict=True):
            tensor.copy_(before)
            tensor.grad = None
        self.optimizer.load_state_dict(optimizer)

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
            references: the reference texts of the same samples, for terms on them.

        Returns:
            Metrics, averaged over the optimizer steps, and ``first_step_kl``, the first one's ``update_kl``.

        Raises:
            UserError: a loss, a gradient, a weight or an output of the trained models is not finite; a step
                that would have brought it into the weights was not made.
        """
        self.rates.set(update, progress)
        gathered: dict[str, list[float]] = defaultdict(list)
        if experience.pairs is not None:
            gathered["pairs"].append(float(len(experience.pairs)))
        if not len(experience.units) and references is None:
            return _means(gathered)
        if self.config.max_update_kl is not None:
            experience = with_beginning(
                experience, row, self.policy, self.sampling, self.config.max_micro_tokens
            )
        shared = not sharding.is_whole(self.policy.model)
        with distributed.in_touch(computes=True, unheard=shared):
            for metrics in self._steps(experience, row, update, progress, references):
                for name, value in metrics.items():
                    gathered[name].append(float(value))
                if "update_kl" in metrics:
                    # Before the first step the policy is the one that wrote the texts, unless something is wrong.
                    gathered.setdefault("first_step_kl", [float(metrics["update_kl"])])
                if metrics.get("update_kl", 0.0) > (self.config.max_update_kl or float("inf")):
                    break
        check_result(self.policy, self.critics, self.parameters, experience.rollout)
        if isinstance(self.guide, FollowingGuide):
            self.guide.follow()
        return _means(gathered)

    def _steps(
        self,
        experience: Experience,
        row: Algorithm,
        update: int,
        progress: float,
        references: Rollout | None,
    ) -> Iterator[dict[str, Tensor]]:
        for epoch in range(self.config.epochs):
            order = seeding.generator(self.seed, "minibatches", update, epoch)
            for batch, texts in minibatches(experience, references, self.config.minibatch, order):
                metrics = self.backward(batch, row, progress, texts)
                for name, value in metrics.items():
                    require_finite(f"the training's '{name}'", value)
                metrics["gradient_norm"] = self._step()
                yield metrics

    def backward(
        self,
        batch: Experience,
        row: Algorithm,
        progress: float = 0.0,
        references: Rollout | None = None,
    ) -> dict[str, Tensor]:
        """Add the gradient of one optimizer step's loss to the parameters, micro-batch by micro-batch.

        The loss is the sum of the row's terms, each averaged over the tokens or pairs that it reads; terms that
        weigh tokens by their advantage are averaged together, over the tokens of all of them.

        Args:
            references: the reference texts of the batch's samples, for terms on them.

        Returns:
            The losses and what they report; ``update_kl``, how far the policy is from where the update began, in nats
            per token.
        """
        metrics: dict[str, Tensor] = {}
        critic = None if row.critic is None else self.critics[row.critic]
        shared = critic is not None and critic.reads_policy_hidden
        terms = step_terms(row, batch, references, progress)
        of_critic = [term for term in terms if term.term.of_critic]
        on_references = [term for term in terms if term.term.on is Span.REFERENCES]
        of_policy = [term for term in terms if term not in of_critic and term not in on_references]
        value_reads = read_by_any((term.term for term in of_critic), batch.rollout, row)
        device = self.policy.model.device

        for one in passes(of_policy, batch, row, measured=self.config.max_update_kl is not None):
            of_trunk = shared and one.as_written
            for micro, tokens, counts in micro_batches(
                one.episodes,
                one.reads | value_reads if of_trunk else one.reads,
                self.config.max_micro_tokens,
                device,
            ):
                found = metrics if counts else {}
                loss, hidden = self._policy_loss(
                    one.terms, micro, tokens, row, one.moved, found, hidden=of_trunk
                )
                if critic is not None and of_trunk:
                    loss = loss + _value_loss(of_critic, critic, micro, tokens, hidden, row, found)
                _backward(loss, counts=counts)
        if critic is not None and not shared:
            for micro, tokens, counts in micro_batches(
                batch, value_reads, self.config.max_micro_tokens, device
            ):
                found = metrics if counts else {}
                _backward(_value_loss(of_critic, critic, micro, tokens, None, row, found), counts=counts)
        if references is not None and on_references:
            self._reference_loss(on_references, references, row, metrics)
        distributed.sum_gradients(self.trained)
        return distributed.sum_numbers({name: value.cpu() for name, value in metrics.items()})

    def _step(self) -> Tensor:
        """Clip and apply the gradients; returns the norm of the policy's."""
        norms = {}
        for name, parameters in self.parameters.items():
            own = torch.nn.utils.clip_grad_norm_(parameters, self.config.max_gradient_norm)
            norms[name] = sharding.put_together(own)
            require_finite(f"the gradient of the {name}", norms[name])
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norms["policy"]

    def _policy_loss(
        self,
        terms: Sequence[StepTerm],
        micro: Experience,
        tokens: Tokens,
        row: Algorithm,
        moved: Moved | None,
        metrics: dict[str, Tensor],
        *,
        hidden: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """The terms that read the policy's outputs, and how far the policy has moved where that is asked for.

        Returns:
            Their sum; the last hidden states, where ``hidden`` asks for them.
        """
        names = frozenset[str]().union(*(term.term.asks for term in terms))
        if moved is not None:
            names |= {"logprobs", "old_logprobs"}
        inputs, states = self.reader.read(names, micro, tokens, hidden=hidden)
        if moved is not None:
            assert inputs.logprobs is not None, "asked for above"
            assert inputs.old_logprobs is not None, "asked for above"
            reads = read_by_any((term.term for term in terms), micro.rollout, row)
            mask = moved.compared(micro, reads)[:, : inputs.mask.shape[1]]
            gone = losses.update_kl(
                inputs.logprobs, inputs.old_logprobs, mask.to(inputs.mask.device), moved.tokens
            )
            _accumulate(metrics, {"update_kl": gone})
        return _summed(terms, inputs, micro.rollout, row, metrics), states

    def _reference_loss(
        self, terms: Sequence[StepTerm], references: Rollout, row: Algorithm, metrics: dict[str, Tensor]
    ) -> None:
        names = frozenset[str]().union(*(term.term.asks for term in terms))
        prompts = references.prompt_mask.sum(dim=1)
        for rows, counts in dealt_out(prompts, references.lengths, self.config.max_micro_tokens):
            micro = Experience(Scored(references[rows]))
            tokens = Tokens.of(micro.rollout).to(self.policy.model.device)
            inputs, _ = self.reader.read(names, micro, tokens)
            found = metrics if counts else {}
            _backward(_summed(terms, inputs, micro.rollout, row, found), counts=counts)


def _summed(
    terms: Sequence[StepTerm],
    inputs: LossInputs,
    rollout: Rollout,
    row: Algorithm,
    metrics: dict[str, Tensor],
) -> Tensor:
    """The sum of terms over one micro-batch, each over the tokens that it reads."""
    loss = torch.zeros((), device=inputs.mask.device)
    # A name of ours stays ours.
    taken = _MEASURED | {f"{name}_loss" for name in row.terms}
    for term in terms:
        summand, found = term(inputs, read_by(term.term, rollout, row)[:, : inputs.mask.shape[1]])
        own = f"{term.name}_loss"
        _accumulate(metrics, {name: v for name, v in found.items() if name == own or name not in taken})
        loss = loss + summand
    return loss


def _value_loss(
    terms: Sequence[StepTerm],
    critic: Critic,
    micro: Experience,
    tokens: Tokens,
    hidden: Tensor | None,
    row: Algorithm,
    metrics: dict[str, Tensor],
) -> Tensor:
    values = sharding.run(critic, critic, tokens, hidden)
    return _summed(terms, value_inputs(micro, values), micro.rollout, row, metrics)


def _backward(loss: Tensor, *, counts: bool) -> None:
    """Add a loss's gradient; of one that does not count, zeros where the other processes add theirs."""
    (loss if counts else loss * 0.0).backward()


def _accumulate(metrics: dict[str, Tensor], found: Mapping[str, Tensor]) -> None:
    # Where they are: to read one here would be to wait for the device at each micro-batch.
    for name, value in found.items():
        metrics[name] = metrics.get(name, torch.zeros(())) + value


def _means(gathered: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: sum(values) / len(values) for name, values in gathered.items()}


def _made(optimizer: Any) -> torch.optim.Optimizer:
    """What a factory returned.

    Raises:
        UserError: it is not an optimizer.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UserError(
            f"'optimizer' returned {optimizer!r:.60}: it must return a torch.optim.Optimizer over the groups it is given."
        )
    return optimizer
