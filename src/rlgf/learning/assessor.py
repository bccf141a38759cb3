"""From a rollout to experience: rewards, KL penalty, values, advantages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import TrainerState

from rlgf import distributed
from rlgf.algorithms import Algorithm, Estimates, Estimator, Pairs, Signals
from rlgf.concatenation import concatenate
from rlgf.errors import UserError
from rlgf.finite import require_finite
from rlgf.guides.base import TextScoringGuide
from rlgf.learning.guide_scores import guide_scores
from rlgf.learning.inputs import read_by, read_by_any
from rlgf.models import sharding
from rlgf.models.critic import Critic
from rlgf.models.language_model import LanguageModel
from rlgf.models.response_scores import score_logprobs, score_values
from rlgf.models.sampling import Sampling
from rlgf.objectives.advantages import importance_weights, rewarded_share, whiten
from rlgf.objectives.losses import log_ratio
from rlgf.rewards import Reward, RewardInput, Scale, score
from rlgf.rewards.base import keeps_state, learned
from rlgf.rewards.composed import Scores
from rlgf.types import Author, Experience, Rollout, Scored


@dataclass(frozen=True)
class Assessor:
    """Everything that judges finished episodes."""

    policy: LanguageModel
    reference: LanguageModel | None
    """The frozen start of the policy; None where no row of the algorithm has rewards or pairs."""
    critics: Mapping[str, Critic]
    reward: Reward | None
    """None for algorithms that need none."""
    sampling: Sampling
    max_batch_tokens: int
    scale: Scale = field(default_factory=Scale)
    """Makes the pay of a reward, and counts in the rewards of every `assess`."""
    trainer_state: TrainerState = field(default_factory=TrainerState)
    """How far the run is, for rewards that ask; the trainer counts its updates in it."""
    importance_bound: float | None = None
    """Bound of the importance weights of tokens that others sampled for the policy; None: they all weigh 1."""
    guide: TextScoringGuide | None = None
    """Needed by rows that learn from how probable the guide finds the texts."""

    def assess(self, rollout: Rollout, row: Algorithm, kl_coefficient: float) -> Experience:
        """Score a rollout as the row's terms need it.

        Where several processes share an update, each scores the episodes that it is given, and all
        get the experience of all.

        Raises:
            UserError: The reward function returned something other than one finite number per text, or a model's
                log-probabilities or values, or what became of them, are not finite.
        """
        critic = None if row.critic is None else self.critics[row.critic]
        with sharding.whole(self.policy.model, *([] if critic is None else [critic])):
            scored = concatenate(distributed.gathered(self._score(rollout, row)))
        return self._estimate(scored, row, kl_coefficient)

    def _score(self, rollout: Rollout, row: Algorithm) -> Scored:
        """The scores that concern each episode by itself."""
        scored = Scored(rollout)
        if row.needs_reward:
            rewards, terms, logged = self._scores(rollout)
            means = {name: sum(values) / len(values) for name, values in logged.metrics.items()}
            spread = {name: torch.full((len(rollout),), mean) for name, mean in means.items()}
            scored = replace(scored, rewards=rewards, reward_terms=terms, logged=spread)
        by_policy = rollout.written_by(Author.POLICY)
        require_finite("the policy's log-probabilities of its own texts", rollout.sampled_logprobs, by_policy)
        if row.needs_reference:
            found = self._reference_logprobs(rollout)
            # Where a text is begun by another, its own tokens need not be possible.
            read = rollout.authored if row.paired else by_policy
            require_finite("the reference's log-probabilities", found, read)
            scored = replace(scored, reference_logprobs=found)
            if row.scores_prompts and "reference_logprobs" in row.reads:
                found = self._reference_logprobs(rollout.bare)
                require_finite("the reference's log-probabilities", found, read)
                scored = replace(scored, unhinted_reference_logprobs=found)
        if "old_log_ratios" in row.reads:
            # Whether others wrote tokens is not the same in all processes, and what one of them has all must have.
            others = bool((rollout.authored & ~by_policy).any())
            found = self._logprobs(self.policy, rollout) if others else rollout.sampled_logprobs
            require_finite("the policy's log-probabilities before the update", found, rollout.authored)
            scored = replace(scored, old_logprobs=found)
        if row.reads_guide_scores:
            assert self.guide is not None, "checked when the run was set up"
            chunks, found = guide_scores(self.guide, self.policy, rollout)
            require_finite("the guide's log-probabilities", found)
            scored = replace(scored, chunks=chunks, guide_logprobs=found)
        if row.critic is not None:
            critic = self.critics[row.critic]
            found = score_values(critic, self.policy.model, rollout, self.max_batch_tokens)
            require_finite("the critic's values", found)
            scored = replace(scored, values=found)
        return scored

    def _estimate(self, scored: Scored, row: Algorithm, kl_coefficient: float) -> Experience:
        """Pay, advantages and returns or pairs, which look at groups and at the whole batch."""
        rollout = scored.rollout
        importance = self._importance(rollout)
        experience = Experience(scored, importance=importance, kl_coefficient=kl_coefficient)
        if row.estimator is None:
            return experience
        paid = torch.zeros(len(rollout)) if scored.rewards is None else self.scale.pay(scored.rewards)
        penalty = kl_coefficient if row.kl_penalty == "reward" else 0.0
        token_rewards = shape_rewards(paid, rollout, scored.reference_logprobs, penalty)
        signals = Signals(
            token_rewards,
            paid,
            scored.values,
            rollout.authored,
            rollout.group,
            row.gamma,
            row.gae_lambda,
            rollout.sampled_logprobs,
            scored.chunks,
            scored.guide_logprobs,
            rollout.start_values,
            None if rollout.branch_values is None else self.scale.scaled(rollout.branch_values),
        )
        found = estimated(row.estimator, signals)
        if isinstance(found, Pairs):
            return replace(
                experience, token_rewards=token_rewards, pairs=found.rows, difference=found.difference
            )
        terms = row.terms.values()
        read = read_by_any((term for term in terms if term.weighs_advantages), rollout, row)
        asked = read_by_any((term for term in terms if "advantages" in term.asks), rollout, row)
        # What neither a loss nor a selector reads may be anything.
        advantages = torch.where(asked, found.advantages, 0.0)
        if row.whiten:
            share = rewarded_share(advantages, paid, read)
            whitened = (
                share * whiten(advantages, read)
                if share
                else self._of_penalty(signals, scored, row.estimator, penalty)
            )
            advantages = torch.where(read, whitened, advantages)
        require_finite("the advantages", advantages, asked)
        if importance is not None and row.estimator.weighs:
            # After whitening, which would take a common factor out again.
            advantages = advantages * importance
        experience = replace(experience, token_rewards=token_rewards, gae_lambda=found.gae_lambda)
        return replace(experience, advantages=advantages, returns=_returns(found, rollout, row))

    def _importance(self, rollout: Rollout) -> Float[Tensor, "B T"] | None:
        if rollout.engine_logprobs is None or self.importance_bound is None:
            return None
        weights = importance_weights(rollout.sampled_logprobs, rollout.engine_logprobs, self.importance_bound)
        return torch.where(rollout.written_by(Author.POLICY), weights, 1.0)

    def _of_penalty(
        self, signals: Signals, scored: Scored, estimator: Estimator, penalty: float
    ) -> Float[Tensor, "B T"]:
        """The advantages where all are paid alike: nothing tells one text from another, and the KL penalty is left."""
        nothing = torch.zeros_like(signals.rewards)
        penalties = shape_rewards(nothing, scored.rollout, scored.reference_logprobs, penalty)
        values = None if signals.values is None else torch.zeros_like(signals.values)
        found = estimated(
            estimator, replace(signals, token_rewards=penalties, rewards=nothing, values=values)
        )
        assert isinstance(found, Estimates), "pairs are not whitened"
        return found.advantages

    def rewards(self, rollout: Rollout) -> Float[Tensor, "B"]:
        """What the reward function says of each text, before it is scaled.

        Raises:
            UserError: see `assess`.
        """
        return self._scores(rollout)[0]

    def learn_reward(self, rollout: Rollout) -> dict[str, float]:
        """Let a reward that learns do so; its metrics."""
        return learned(self.reward, rollout)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"scale": self.scale.state_dict()}
        if keeps_state(self.reward):
            state["reward"] = self.reward.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.scale.load_state_dict(state["scale"])
        if keeps_state(self.reward):
            self.reward.load_state_dict(state["reward"])

    def _scores(self, rollout: Rollout) -> Scores:
        assert self.reward is not None, "checked when the run was set up"
        return score(self.reward, RewardInput.of(rollout, self.trainer_state))

    def _reference_logprobs(self, rollout: Rollout) -> Float[Tensor, "B T"]:
        if self.reference is None:
            raise UserError(
                "an algorithm with rewards or pairs needs the policy's frozen start as 'reference'."
            )
        return self._logprobs(self.reference, rollout)

    def _logprobs(self, model: LanguageModel, rollout: Rollout) -> Float[Tensor, "B T"]:
        with model.running() as running:
            return score_logprobs(running, rollout, self.sampling, self.policy.end_ids, self.max_batch_tokens)


def _returns(found: Estimates, rollout: Rollout, row: Algorithm) -> Float[Tensor, "B T"] | None:
    """What the critic learns from, at the tokens that its term reads."""
    if found.returns is None or row.value_term is None:
        return found.returns
    read = read_by(row.value_term, rollout, row)
    require_finite("the returns", found.returns, read)
    return torch.where(read, found.returns, 0.0)


def shape_rewards(
    rewards: Float[Tensor, "B"],
    rollout: Rollout,
    reference_logprobs: Float[Tensor, "B T"] | None,
    kl_coefficient: float,
) -> Float[Tensor, "B T"]:
    """The reward at each response's last token, less the KL penalty at each policy token.

    ``r_t = R [t = last] - c (log pi(y_t | s_t) - log reference(y_t | s_t)) [policy wrote y_t]``
    (Stiennon et al., arXiv 2009.01325, section 3.4). Tokens of others pay nothing: the policy did
    not choose them. Nor does a difference of rounding (`losses.log_ratio`).
    """
    shaped = torch.zeros(rollout.response_ids.shape)
    if reference_logprobs is not None:
        by_policy = rollout.written_by(Author.POLICY)
        ratio = log_ratio(rollout.sampled_logprobs, reference_logprobs)
        shaped = -kl_coefficient * torch.where(by_policy, ratio, 0.0)
    last = (rollout.lengths - 1)[:, None]
    return shaped.scatter_add(1, last, rewards[:, None])


def estimated(estimator: Estimator, signals: Signals) -> Estimates | Pairs:
    """An estimator's answer for the authors' tokens, as if an environment's tokens between them were not there.

    From the last token of a turn the next state is the one after the reply, so ``V_t+1`` of generalized advantage
    estimation is the value before the next turn's first token. Tokens of the environment get 0.

    Args:
        signals: ``mask`` holds the tokens that authors chose.

    Raises:
        UserError: it is one of the user's own, and returned something else.
    """
    first = signals.mask.long().argsort(dim=1, descending=True, stable=True)
    back = first.argsort(dim=1)
    if bool((first[:, 1:] > first[:, :-1]).all()):
        return _checked(estimator, signals)

    by_token: dict[str, Any] = {
        name: value.gather(1, first)
        for name, value in vars(signals).items()
        if isinstance(value, Tensor) and value.dim() > 1
    }
    found = _checked(estimator, replace(signals, **by_token))
    if isinstance(found, Pairs):
        return found
    returns = None if found.returns is None else (found.returns.gather(1, back) * signals.mask)
    return replace(found, advantages=found.advantages.gather(1, back) * signals.mask, returns=returns)


def _checked(estimator: Estimator, signals: Signals) -> Estimates | Pairs:
    """
    Raises:
        UserError: it says neither pairs nor a number for each token, or nothing for a critic to learn from.
    """
    found: Any = estimator.estimate(signals)
    if isinstance(found, Pairs):
        return found
    shape = signals.mask.shape
    odd = [found]
    if isinstance(found, Estimates):
        told = [found.advantages, *([] if found.returns is None else [found.returns])]
        odd = [one for one in told if not isinstance(one, Tensor) or one.shape != shape]
    if odd:
        shown = f"a tensor of {tuple(odd[0].shape)}" if isinstance(odd[0], Tensor) else f"{odd[0]!r:.60}"
        raise UserError(
            f"the estimator of 'algorithm.advantage' returned {shown}: it must return Pairs, or Estimates(advantages, "
            f"returns), each a tensor of {tuple(shape)}, a number for each token."
        )
    estimates: Estimates = found
    if estimates.returns is None and estimator.returns and signals.values is not None:
        raise UserError(
            "the estimator of 'algorithm.advantage' returned no returns, and the row has a critic to learn them: it must "
            "return Estimates(advantages, returns), or 'algorithm.terms' have no value term."
        )
    returns = None if estimates.returns is None else estimates.returns.detach().float()
    return replace(estimates, advantages=estimates.advantages.detach().float(), returns=returns)
