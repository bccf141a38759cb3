"""Reinforcement learning with guided feedback for language models (arXiv 2306.11816)."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlgf.algorithms import ALGORITHMS, Algorithm, Estimates, Estimator, Mixture, Pairs, Signals
    from rlgf.config import Config, load_config
    from rlgf.environments import Environment
    from rlgf.errors import UserError
    from rlgf.guides import Guide, Request
    from rlgf.rewards import Reward
    from rlgf.run.build import Parts, build_parts
    from rlgf.run.hub import push_to_hub
    from rlgf.run.trainer import Trainer
    from rlgf.tasks import Task
    from rlgf.types import Author, Completion, Experience, Message, Rollout, Sample

# When it is imported on a CPU that multiplies in bfloat16 it recommends a kernel, also to runs that quantize nothing.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

_HOMES = {
    "rlgf.algorithms": ("ALGORITHMS", "Algorithm", "Estimates", "Estimator", "Mixture", "Pairs", "Signals"),
    "rlgf.config": ("Config", "load_config"),
    "rlgf.environments": ("Environment",),
    "rlgf.errors": ("UserError",),
    "rlgf.guides": ("Guide", "Request"),
    "rlgf.rewards": ("Reward",),
    "rlgf.tasks": ("Task",),
    "rlgf.run.build": ("Parts", "build_parts"),
    "rlgf.run.hub": ("push_to_hub",),
    "rlgf.run.trainer": ("Trainer",),
    "rlgf.types": ("Author", "Completion", "Experience", "Message", "Rollout", "Sample"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Author",
    "Completion",
    "Config",
    "Environment",
    "Estimates",
    "Estimator",
    "Experience",
    "Guide",
    "Message",
    "Mixture",
    "Pairs",
    "Parts",
    "Request",
    "Reward",
    "Rollout",
    "Sample",
    "Signals",
    "Task",
    "Trainer",
    "UserError",
    "build_parts",
    "load_config",
    "push_to_hub",
]


def __getattr__(name: str) -> Any:
    """Load a name when it is first asked for: `rlgf --help` need not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'rlgf' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)
