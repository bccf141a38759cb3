"""How much of a policy gradient is signal: the cosine between the gradients of two sets of episodes.

    python benchmarks/gradient_signal.py RECIPE [OVERRIDES] [--episodes 256] [--algorithm guided-rloo]

Other prompts, other noise, the same start and the same reward: what the two gradients share is what
training can go by, and the rest is noise that only more episodes take away. The cosine of two gradients
with a share ``s`` of signal in their squared norm is about ``s``; ``n`` times as many episodes have a share
of ``n s / (1 + (n - 1) s)``. Advantages are those of RLOO in groups of four, which need no critic.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from rlgf.config import load_config
from rlgf.training.trainer import Trainer


def gradient(trainer: Trainer, update: int) -> tuple[Tensor, float]:
    """The policy's gradient over the episodes of an update, flat, and their mean reward."""
    trainer.progress.update = update  # it also numbers the noise
    row = trainer.row()
    experience = trainer.assess(trainer.collect(trainer.batch(), row), row)
    trainer.parts.updater.backward(experience, row)
    parameters = trainer.parts.policy.trained
    flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    trainer.parts.updater.optimizer.zero_grad()
    return flat, float(experience.rewards.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", help="recipes and overrides")
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--algorithm", choices=("rloo", "guided-rloo"), default="rloo")
    arguments = parser.parse_intermixed_args()
    groups = {"algorithm": arguments.algorithm, "rollout": {"episodes": arguments.episodes, "group_size": 4}}
    trainer = Trainer(load_config(*arguments.sources, groups))
    (one, reward), (other, other_reward) = gradient(trainer, 0), gradient(trainer, 1)
    cosine = float(torch.cosine_similarity(one, other, dim=0))
    print(f"reward {reward:.3f} and {other_reward:.3f}; cosine {cosine:.3f}")


if __name__ == "__main__":
    main()
