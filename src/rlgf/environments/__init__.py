"""Environments: what answers an author's turns in a dialogue."""

from rlgf.environments.base import Environment, reply_to
from rlgf.environments.build import ENVIRONMENTS, EnvironmentConfig, build_environment

__all__ = ["ENVIRONMENTS", "Environment", "EnvironmentConfig", "build_environment", "reply_to"]
