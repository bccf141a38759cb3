"""Environments: what answers an author's turns in a dialogue."""

from rlgf.environments.base import ENVIRONMENTS, Environment, EnvironmentConfig, reply_to

__all__ = ["ENVIRONMENTS", "Environment", "EnvironmentConfig", "reply_to"]
