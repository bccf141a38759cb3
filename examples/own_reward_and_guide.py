"""Your own reward and your own guide in Python, in place of sections of the recipe.

python examples/own_reward_and_guide.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rlgf import Completion, Request, Trainer


def exclamations(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """A reward is a plain function: one number for each completion."""
    return [min(text.count("!"), 3) / 3 for text in completions]


class Enthusiast:
    """A guide is anything with this method. This one knows a single sentence."""

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        return [Completion(" What a wonderful film! I loved it!", finished=False) for _ in requests]


def main(*overrides: str) -> Trainer:
    own = {"name": "own", "algorithm": "ppo++", "training": {"updates": 10}}
    trainer = Trainer(["examples/letters.yaml", own, *overrides], reward=exclamations, guide=Enthusiast())
    trainer.train()
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
