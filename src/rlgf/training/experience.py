"""From a rollout to experience: rewards, KL penalty, values, advantages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import TrainerState

from rlgf.advantages import rewarded_share, whiten
from rlgf.algorithms import ESTIMATORS, Algorithm, Estimator, Part, Signals
from rlgf.errors import UserError, resolve
from rlgf.finite import require_finite
from rlgf.losses import log_ratio
from rlgf.models.critic import Critic
from rlgf.models.loading import LanguageModel
from rlgf.rewards import Logged, Reward, RewardInput, Scale, score
from rlgf.rewards.base import LearnedReward, StatefulReward
from rlgf.rewards.composed import Scores
from rlgf.rollout.sampling import Sampling
from rlgf.rollout.scoring import score_logprobs, score_values
from rlgf.training import processes
from rlgf.types import Author, Experience, Rollout, concatenate


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
    gamma: float
    max_batch_tokens: int
    scale: Scale = field(default_factory=Scale)
    """From what the reward says to what is paid; counts in the rewards of every `assess`."""
    trainer_state: TrainerState = field(default_factory=TrainerState)
    """How far the run is, for rewards that ask; the trainer counts its updates in it."""

    def assess(self, rollout: Rollout, row: Algorithm, kl_coefficient: float) -> Experience:
        """Score a rollout as the row's losses need it.

        Where several processes share an update, each scores the episodes that it is given, and all
        get the experience of all.

        Raises:
            UserError: The reward function returned something other than one finite number a text, or a model's
                log-probabilities or values, or what became of them, are not finite.
        """
        scored = concatenate(processes.gathered(self._score(rollout, row)))
        return self._estimate(scored, row, kl_coefficient)

    def _score(self, rollout: Rollout, row: Algorithm) -> Experience:
        """What concerns each episode by itself."""
        zeros = torch.zeros(rollout.response_ids.shape)
        rewards, terms, logged = Scores(torch.zeros(len(rollout)), {}, Logged())
        reference_logprobs = values = zeros
        if row.needs_reward or row.paired:
            reference_logprobs = self._reference_logprobs(rollout)
        if row.needs_reward:
            rewards, terms, logged = self._scores(rollout)
            if row.critic is not None:
                critic = self.critics[row.critic]
                values = score_values(critic, self.policy.model, rollout, self.max_batch_tokens)
        if row.policy_loss_on is Part.WHOLE:
            policy_mask = rollout.response_mask
        else:
            policy_mask = rollout.written_by(row.author(row.policy_loss_on))
        nothing = torch.zeros_like(policy_mask)
        by_policy = rollout.written_by(Author.POLICY)
        old_logprobs = self._old_logprobs(rollout, row)
        require_finite("the policy's log-probabilities of its own texts", rollout.sampled_logprobs, by_policy)
        require_finite("the policy's log-probabilities before the update", old_logprobs, policy_mask)
        require_finite("the reference's log-probabilities", reference_logprobs, policy_mask | by_policy)
        require_finite("the critic's values", values)
        return Experience(
            rollout=rollout,
            rewards=rewards,
            token_rewards=zeros,
            reference_logprobs=reference_logprobs,
            old_logprobs=old_logprobs,
            values=values,
            advantages=zeros,
            returns=zeros,
            policy_mask=policy_mask,
            rollin_mask=(nothing if row.rollin_loss is None else rollout.written_by(row.author(Part.ROLLIN))),
            value_mask=(
                nothing if row.value_loss_on is None else rollout.written_by(row.author(row.value_loss_on))
            ),
            terms=terms,
            logged={
                name: torch.full((len(rollout),), sum(values) / len(values))
                for name, values in logged.metrics.items()
            },
        )

    def _estimate(self, scored: Experience, row: Algorithm, kl_coefficient: float) -> Experience:
        """What is paid, advantages and returns, which look at groups and at the whole batch."""
        if row.advantage is None:
            return scored
        rollout = scored.rollout
        paid = self.scale.pay(scored.rewards)
        penalty = kl_coefficient if row.kl_penalty == "reward" else 0.0
        token_rewards = shape_rewards(paid, rollout, scored.reference_logprobs, penalty)
        signals = Signals(
            token_rewards,
            paid,
            scored.values,
            rollout.response_mask,
            rollout.group,
            self.gamma,
            row.gae_lambda,
        )
        estimator: Estimator = resolve(row.advantage, ESTIMATORS, "algorithm.advantage")
        advantages, returns = estimator.estimate(signals)
        if row.whiten:
            read = scored.policy_mask | scored.rollin_mask
            share = rewarded_share(advantages, paid, read)
            if share:
                advantages = share * whiten(advantages, read)
            else:
                # Paid alike, nothing tells one text from another: what is left is the penalty itself.
                nothing = torch.zeros_like(paid)
                penalties = shape_rewards(nothing, rollout, scored.reference_logprobs, penalty)
                unpaid = replace(
                    signals, token_rewards=penalties, rewards=nothing, values=torch.zeros_like(scored.values)
                )
                advantages, _ = estimator.estimate(unpaid)
        require_finite("the advantages", advantages, scored.policy_mask | scored.rollin_mask)
        require_finite("the returns", returns, scored.value_mask)
        # Of a group only the pair that was picked is learned from.
        read = scored.policy_mask & (advantages != 0) if row.paired else scored.policy_mask
        return replace(
            scored,
            token_rewards=token_rewards,
            advantages=advantages,
            returns=returns,
            policy_mask=read,
            kl_coefficient=kl_coefficient if row.kl_penalty == "loss" else 0.0,
        )

    def rewards(self, rollout: Rollout) -> Float[Tensor, "B"]:
        """What the reward function says of each text, before it is scaled.

        Raises:
            UserError: see `assess`.
        """
        return self._scores(rollout)[0]

    def learn_reward(self, rollout: Rollout) -> dict[str, float]:
        """Let a reward that learns do so; its metrics."""
        return dict(self.reward.update(rollout)) if isinstance(self.reward, LearnedReward) else {}

    def state_dict(self) -> dict[str, Any]:
        """What changes over a run: the scale, and a reward that has a state."""
        state: dict[str, Any] = {"scale": self.scale.state_dict()}
        if isinstance(self.reward, StatefulReward):
            state["reward"] = self.reward.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.scale.load_state_dict(state["scale"])
        if isinstance(self.reward, StatefulReward):
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

    def _old_logprobs(self, rollout: Rollout, row: Algorithm) -> Float[Tensor, "B T"]:
        """What the policy itself sampled is known; what others wrote is scored where a loss asks for it."""
        reads_old = row.pair_loss is not None and row.pair_loss.reads_old
        if reads_old and (rollout.response_mask & ~rollout.written_by(Author.POLICY)).any():
            return self._logprobs(self.policy, rollout)
        return rollout.sampled_logprobs

    def _logprobs(self, model: LanguageModel, rollout: Rollout) -> Float[Tensor, "B T"]:
        with model.running() as running:
            return score_logprobs(running, rollout, self.sampling, self.policy.end_ids, self.max_batch_tokens)


def shape_rewards(
    rewards: Float[Tensor, "B"],
    rollout: Rollout,
    reference_logprobs: Float[Tensor, "B T"],
    kl_coefficient: float,
) -> Float[Tensor, "B T"]:
    """The reward at each response's last token, less the KL penalty at each policy token.

    ``r_t = R [t = last] - c (log pi(y_t | s_t) - log reference(y_t | s_t)) [policy wrote y_t]``
    (Stiennon et al., arXiv 2009.01325, section 3.4). Tokens of others pay nothing: the policy did
    not choose them. Nor does a difference of rounding (`losses.log_ratio`).
    """
    by_policy = rollout.written_by(Author.POLICY)
    ratio = log_ratio(rollout.sampled_logprobs, reference_logprobs)
    shaped = -kl_coefficient * torch.where(by_policy, ratio, 0.0)
    last = (rollout.lengths - 1)[:, None]
    return shaped.scatter_add(1, last, rewards[:, None])
