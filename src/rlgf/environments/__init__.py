"""Environments: what answers an author's turns in a dialogue."""

from rlgf.environments.base import ENVIRONMENTS, Environment, EnvironmentConfig, build_environment, reply_to

__all__ = ["ENVIRONMENTS", "Environment", "EnvironmentConfig", "build_environment", "reply_to"]
