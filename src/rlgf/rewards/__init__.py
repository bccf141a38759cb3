"""Rewards: functions over finished texts."""

from rlgf.demo.judge import Judge
from rlgf.demo.sentiment import Sentiment
from rlgf.rewards.base import Logged, Reward, RewardInput, checked_rewards
from rlgf.rewards.build import REWARDS, RewardConfig, build_reward
from rlgf.rewards.composed import Composed, Term, score
from rlgf.rewards.scale import Scale

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
    "build_reward",
    "checked_rewards",
    "score",
]
