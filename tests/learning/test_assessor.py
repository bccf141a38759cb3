"""From finished texts to experience: rewards, the KL penalty, values and advantages."""

from __future__ import annotations

import pytest
import torch
from pairs_of_episodes import KL, row
from test_exact_gradients import POLICY, RESPONSES, draft, rollout_of

from rlgf.errors import UserError
from rlgf.learning.assessor import Assessor
from rlgf.models.sampling import Sampling
from rlgf.types import Author
from toys import table_language_model
from training_toys import ROWS, build, experience_of

WITH_REWARD = sorted(name for name, row in ROWS.items() if row.needs_reward)


@pytest.mark.parametrize("name", WITH_REWARD)
def test_kl_penalty_reaches_every_algorithm(name: str) -> None:
    """In the rewards, in the loss, or as DPO's own beta."""
    trainer = build(name)
    row = ROWS[name].changed(kl={"coefficient": 0.3})
    experience = experience_of(trainer, row)
    rollout = experience.rollout
    by_policy = rollout.written_by(Author.POLICY)
    assert by_policy.any()
    ratios = (rollout.sampled_logprobs - experience.scored.reference_logprobs) * by_policy
    assert ratios[by_policy].abs().min() > 0
    assert row.kl_penalty == (
        "loss" if row.advantage == "group_relative" else None if row.advantage == "preference" else "reward"
    )
    assert experience.kl_coefficient == 0.3

    in_reward = 0.3 if row.kl_penalty == "reward" else 0.0
    expected = experience.scored.rewards - in_reward * ratios.sum(dim=1)
    torch.testing.assert_close(experience.token_rewards.sum(dim=1), expected, atol=1e-5, rtol=1e-5)
    before_last = torch.arange(by_policy.shape[1]) < rollout.lengths[:, None] - 1
    paying = experience.token_rewards[before_last & by_policy]
    torch.testing.assert_close(paying, -in_reward * ratios[before_last & by_policy])
    assert not experience.token_rewards[before_last & ~by_policy].any(), "others pay nothing"
    assert not experience.token_rewards[~rollout.response_mask].any()
    reported = trainer.parts.updater.update(experience, row)
    assert ("kl_estimate" in reported) == (row.kl_penalty == "loss")


def test_a_reward_is_not_asked_for_behaviour_cloning() -> None:
    def refuse(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
        raise AssertionError("there is no advantage to estimate")

    trainer = build("bc", reward=refuse)
    assert trainer.step()["policy_loss"] > trainer.step()["policy_loss"] > 0


def test_a_pair_loss_without_a_reference_model_is_refused() -> None:
    found = row("offline-dpo")
    rollout = rollout_of([draft(found, response, 0) for response in RESPONSES[:2]], [0, 0])
    assessor = Assessor(table_language_model(POLICY), None, {}, None, Sampling(), 10**6)
    with pytest.raises(UserError, match="needs the policy's frozen start"):
        assessor.assess(rollout, found, KL)
