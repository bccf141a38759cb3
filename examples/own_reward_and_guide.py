"""Your own reward and your own guide in Python, on the small GPT.

    python examples/own_reward_and_guide.py

Run `rlgf train recipes/start/small_gpt.yaml` once before.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlgf import Completion, Request, Trainer, build_parts, load_config


def exclamations(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """A reward is a plain function: one number a completion."""
    return [min(text.count("!"), 3) / 3 for text in completions]


class Enthusiast:
    """A guide is anything with this method. This one knows a single sentence."""

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        return [Completion(" What a wonderful film! I loved it!", finished=False) for _ in requests]


config = load_config(
    "recipes/imdb.yaml",
    {"algorithm": "ppo++", "name": "own", "training": {"updates": 10}, "guide": {"model": "made below"}},
)
parts = build_parts(config, reward=exclamations, guide=Enthusiast())
trainer = Trainer(config, parts)
trainer.train()
