"""Rewards: functions over finished texts."""

from rlgf.rewards.base import Logged, Reward, RewardInput, checked_rewards
from rlgf.rewards.build import REWARDS, RewardConfig, TermConfig, build_reward
from rlgf.rewards.composed import Composed, Term, score
from rlgf.rewards.judge import Judge
from rlgf.rewards.scale import Scale
from rlgf.rewards.sentiment import Sentiment

__all__ = [
    "REWARDS",
    "Composed",
    "Judge",
    "Logged",
    "Reward",
    "RewardConfig",
    "RewardInput",
    "Scale",
    "Sentiment",
    "Term",
    "TermConfig",
    "build_reward",
    "checked_rewards",
    "score",
]
