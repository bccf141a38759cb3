"""From finished texts to experience: rewards, the KL penalty, values and advantages."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from enumerated import POLICY, RESPONSES, draft, rollout_of
from pairs_of_episodes import KL, row
from torch import Tensor

from resume_script import toy_trainer
from rlgf.algorithms import Estimates, Estimator
from rlgf.concatenation import concatenate
from rlgf.errors import UserError
from rlgf.learning.assessor import Assessor
from rlgf.models.sampling import Sampling
from rlgf.run.build import build_parts
from rlgf.types import Author
from toys import FavouringGuide, LetterTask, letter_gpt, table_language_model
from training_toys import ROWS, build, experience_of

WITH_REWARD = sorted(name for name, row in ROWS.items() if row.needs_reward)


@pytest.mark.parametrize("name", [name for name in WITH_REWARD if ROWS[name].estimator is not None])
def test_kl_penalty_reaches_every_algorithm(name: str) -> None:
    """In the rewards, in the loss, or as DPO's own beta; a reward that only tells successes is not penalized."""
    trainer = build(name)
    row = ROWS[name].changed(kl={"coefficient": 0.3})
    experience = experience_of(trainer, row)
    rollout = experience.rollout
    by_policy = rollout.written_by(Author.POLICY)
    assert by_policy.any()
    ratios = (rollout.sampled_logprobs - experience.scored.reference_logprobs) * by_policy
    assert ratios[by_policy].abs().min() > 0
    places = {"group_relative": "loss", "branched": "loss", "preference": None, "over_start": None}
    assert row.kl_penalty == places.get(row.advantage, "reward")
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
    def noting(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
        asked.append(completions)
        return [0.0] * len(completions)

    asked: list[list[str]] = []
    trainer = build("bc", reward=noting)
    assert len(asked) == 1, "when it was tried"
    assert trainer.step()["policy_loss"] > trainer.step()["policy_loss"] > 0
    assert len(asked) == 1, "there is no advantage to estimate"


SPARE = Estimator(
    lambda s: Estimates(torch.where(s.mask, s.rewards[:, None].double(), torch.nan)), returns=False
)
"""Says nothing of tokens that nobody wrote."""


@pytest.mark.parametrize("whiten", [False, True])
def test_an_estimator_may_say_anything_of_what_no_loss_reads(whiten: bool) -> None:
    trainer = build("rloo", changes={"advantage": f"{__name__}:SPARE", "whiten": whiten})
    experience = trainer.assess(trainer.collect())
    assert not experience.rollout.response_mask.all()
    assert experience.advantages.dtype == torch.float32
    assert math.isfinite(trainer.learn(experience)["policy_loss"])


def better(advantages: Tensor) -> Tensor:
    return (advantages > 0).float()


@pytest.mark.parametrize("whiten", [False, True])
def test_a_selector_reads_advantages_where_its_loss_reads_none(whiten: bool) -> None:
    rollin = {"loss": "nll", "on": "rollin", "select": f"{__name__}:better"}
    changes = {"advantage": "leave_one_out", "whiten": whiten, "terms": {"rollin": rollin}}
    trainer = build("luffy", changes=changes)
    experience = trainer.assess(trainer.collect())
    by_guide = experience.rollout.written_by(Author.GUIDE)
    assert experience.advantages is not None
    assert (experience.advantages[by_guide] != 0).all()
    assert trainer.learn(experience)["rollin_loss"] > 0


def test_a_pair_loss_without_a_reference_model_is_refused() -> None:
    found = row("offline-dpo")
    rollout = rollout_of([draft(found, response, 0) for response in RESPONSES[:2]], [0, 0])
    assessor = Assessor(table_language_model(POLICY), None, {}, None, Sampling(), 10**6)
    with pytest.raises(UserError, match="needs the policy's frozen start"):
        assessor.assess(rollout, found, KL)


def test_a_run_gives_tokens_ends_and_progress_and_keeps_what_is_logged(tmp_path: Path) -> None:
    calls: list[dict[str, Any]] = []

    def reward(completions, completion_ids, finished, trainer_state, log_extra, log_metric, **kwargs):
        calls.append({"ids": completion_ids, "texts": completions, "finished": finished, **kwargs})
        calls[-1]["step"] = (trainer_state.global_step, trainer_state.max_steps)
        log_metric("letters", sum(map(len, completions)))
        log_metric("reward", 7)
        log_extra("first", [text[:1] for text in completions])
        return [text.count("a") / 6 for text in completions]

    trainer = toy_trainer(tmp_path, algorithm="ppo")
    config = trainer.config
    parts = build_parts(
        config, task=LetterTask(), reward=reward, guide=FavouringGuide("a", 0.6), policy=letter_gpt()
    )
    trainer = type(trainer)(config, parts, trainer.display)
    assert calls.pop()["step"] == (0, 4), "when it was tried, on bytes in place of tokens"
    trainer.train()
    tokenizer = parts.policy.tokenizer
    for call in calls:
        assert list(map(len, call["ids"])) == [
            len(text) + ended for text, ended in zip(call["texts"], call["finished"], strict=True)
        ]
        assert tokenizer.decode(call["ids"][0], skip_special_tokens=True) == call["texts"][0]
        assert call["prompt_ids"][0]
    training = [call["step"] for call in calls]
    assert training[-1] == (4, 4)
    assert {(update, 4) for update in range(4)} <= set(training)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all("letters" in line for line in lines if "reward" in line)
    assert all("validation/letters" in line for line in lines if "validation/reward" in line)
    assert all(line.get("reward", 0) <= 1 and line.get("validation/reward", 0) <= 1 for line in lines), "ours"
    _, *texts = map(json.loads, (tmp_path / "evaluation" / "policy.jsonl").read_text().splitlines())
    assert [text["first"] for text in texts] == [text["completion"][:1] for text in texts]


def test_what_a_share_of_an_update_lacks_does_not_change_what_is_known_of_it() -> None:
    """Whether a guide wrote something differs between the shares of several processes."""
    trainer = build("guided-rebel", changes={"help": {"probability": 0.3}}, rollout={"episodes": 8})
    assessor, row = trainer.parts.assessor, trainer.row()
    mixed = 0
    for update in range(8):
        rollout = trainer.parts.collector.collect(trainer.batch(), row, update)
        halves = [rollout[torch.arange(first, first + 4)] for first in (0, 4)]
        mixed += len({bool(half.written_by(Author.GUIDE).any()) for half in halves}) == 2
        joined = concatenate([assessor._score(half, row) for half in halves])
        whole = assessor._score(rollout, row)
        assert joined.old_logprobs is not None
        assert whole.old_logprobs is not None
        torch.testing.assert_close(joined.old_logprobs, whole.old_logprobs, atol=1e-5, rtol=1e-5)
    assert mixed
