"""A small run of which one part can be made to fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from rlgf.config import Config
from rlgf.guides import LocalGuide
from rlgf.models.language_model import LanguageModel
from rlgf.models.sampling import Sampling
from rlgf.run.build import build_parts
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from toys import LetterTask, letter_gpt, share_of_a


def trainer(
    folder: Path, algorithm: str = "ppo", policy: LanguageModel | None = None, **update: Any
) -> Trainer:
    config = Config.model_validate(
        {
            "task": {"name": "letters"},
            "policy": {"model": "made by hand"},
            "guide": {"model": "made by hand"},
            "reward": {"name": "share_of_a"},
            "algorithm": algorithm,
            "output": str(folder),
            "rollout": {
                "episodes": 8,
                "max_prompt_tokens": 4,
                "max_response_tokens": 6,
            },
            "update": {"minibatch": 4, "epochs": 2, **update},
            "training": {"updates": 3, "checkpoint_every": 1, "trackers": []},
            "evaluation": {"samples": 4, "test_samples": 4},
        }
    )
    policy = policy or letter_gpt()
    guide = LocalGuide(letter_gpt(seed=7), policy.tokenizer, Sampling())
    parts = build_parts(config, task=LetterTask(), reward=share_of_a, guide=guide, policy=policy)
    return Trainer(config, parts, Display(Console(quiet=True)))
