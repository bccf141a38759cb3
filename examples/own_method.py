"""A new method, with its own rule of help and its own loss. To run it: python examples/own_method.py"""

import sys

import torch

from rlgf import Trainer


def fading(length: int, visits: int, *, share: float = 0.7) -> int:
    """How many tokens of the reference begin a text."""
    return int(length * share ** (visits + 1))


def likely_only(
    logprobs: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor, normalizer: float
) -> torch.Tensor:
    """A policy gradient in proportion to each token's probability; tensors are (episodes, tokens)."""
    return -torch.where(mask, logprobs.exp() * advantages, 0.0).sum() / normalizer


ROW = {
    "base": "grpo",
    "name": "fading",
    "script": {"rollin": "reference"},
    "help": {"probability": 0.5, "success": 0.5, "shared": False, "length": {"by": f"{__file__}:fading"}},
    "terms": {"beginnings": {"loss": f"{__file__}:likely_only", "on": "rollin", "weight": 0.5}},
}


def main(*overrides: str) -> Trainer:
    run = Trainer(["examples/letters.yaml", {"name": "own-method", "algorithm": ROW}, *overrides])
    run.train()
    return run


if __name__ == "__main__":
    main(*sys.argv[1:])
