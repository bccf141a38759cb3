"""Rewards: functions over finished texts."""

from rlgf.rewards.base import Reward, checked_rewards

__all__ = ["Reward", "checked_rewards"]
def build_reward(name, options): raise NotImplementedError
