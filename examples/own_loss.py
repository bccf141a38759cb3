"""A loss of your own is one function: it names what it reads, and its other parameters are options of the recipe.

    python examples/own_loss.py

The same in a recipe:

    algorithm:
      base: rloo
      terms: {policy: {loss: "examples/own_loss.py:above_average", options: {margin: 0.05}}}
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from rlgf import Trainer, load_config


def above_average(
    logprobs: Tensor, advantages: Tensor, mask: Tensor, normalizer: float, *, margin: float = 0.0
) -> Tensor:
    """REINFORCE on those tokens alone whose advantage is above a margin; each tensor is (episodes, tokens)."""
    kept = mask & (advantages > margin)
    return -torch.where(kept, logprobs * advantages, 0.0).sum() / normalizer


def main(*overrides: str) -> Trainer:
    term = {"loss": "examples/own_loss.py:above_average", "options": {"margin": 0.05}}
    own = {"name": "own-loss", "algorithm": {"terms": {"policy": term}}}
    trainer = Trainer(load_config("examples/letters.yaml", own, *overrides))
    trainer.train()
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
