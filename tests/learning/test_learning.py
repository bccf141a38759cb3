"""Every algorithm learns a trivial problem to near its best value, with the real trainer."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from rlgf.algorithms import ALGORITHMS
from rlgf.config import Config
from rlgf.training.display import Display
from rlgf.training.parts import build_parts
from rlgf.training.trainer import Trainer
from toys import FavouringGuide, LetterTask, letter_gpt, share_of_a

QUIET = Display(Console(quiet=True))


def trainer(tmp_path: Path, algorithm: str, **options: object) -> Trainer:
    config = Config.model_validate(
        {
            "task": {"name": "toys:LetterTask"},
            "policy": {"model": "made by hand"},
            "guide": {"model": "made by hand"},
            "reward": {"name": "toys:share_of_a"},
            "algorithm": algorithm,
            "output": str(tmp_path / "run"),
            "rollout": {
                "episodes": 64,
                "group_size": 4 if ALGORITHMS[algorithm].rows[0].grouped else 1,
                "max_prompt_tokens": 4,
                "min_response_tokens": 6,
                "max_response_tokens": 6,
            },
            "update": {"minibatch": 32, "epochs": 2, "learning_rate": 5e-3},
            "training": {"updates": 40, "kl": {"coefficient": 0.0}, "trackers": [], "checkpoint_every": 1000},
            "evaluation": {"every": 1000, "samples": 64, "test_samples": 64},
            **options,
        }
    )
    guide = FavouringGuide("a", 0.6)
    parts = build_parts(config, task=LetterTask(), reward=share_of_a, guide=guide, policy=letter_gpt())
    return Trainer(config, parts, QUIET)


# `distill` learns its guide and `offline-dpo` given pairs, not the reward: see test_distillation.py, test_pairs.py.
@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS.keys() - {"distill", "offline-dpo"}))
def test_learns_to_write_the_rewarded_letter(tmp_path: Path, algorithm: str) -> None:
    """Reward is the share of the letter a: about 0.25 at the start, 0.6 for the guide, 1 at best."""
    learner = trainer(tmp_path, algorithm)
    start = learner.evaluate().totals["reward"]
    end = learner.train()["policy"]["reward"]
    assert start < 0.4
    assert end > 0.9
