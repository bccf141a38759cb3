"""How much of a policy gradient is signal: the cosines between the gradients of sets of episodes.

    python benchmarks/gradient_signal.py RECIPE [OVERRIDES] [--episodes 256] [--sets 6] [--algorithm guided-rloo]

Other prompts, other noise, the same start and the same reward: what the gradients share is what training
can go by, and the rest is noise that only more episodes take away. The mean cosine of gradients with a share
``s`` of signal in their squared norm is about ``s``; ``n`` times as many episodes have a share of
``n s / (1 + (n - 1) s)``. Advantages are those of RLOO in groups of four, which need no critic.
"""

from __future__ import annotations

import argparse
import itertools
import statistics

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rlgf.config import load_config
from rlgf.run.trainer import Trainer


def gradient(trainer: Trainer, update: int) -> tuple[Tensor, float]:
    """The policy's gradient over the episodes of an update, flat, and their mean reward."""
    row = trainer.row()
    trainer.progress.update = update  # it numbers the noise
    trainer.progress.samples = update * trainer.config.rollout.prompts(row)
    experience = trainer.assess(trainer.collect(trainer.batch(), row), row)
    trainer.parts.updater.backward(experience, row)
    parameters = trainer.parts.policy.trained
    flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    trainer.parts.updater.optimizer.zero_grad()
    return flat, float(experience.scored.rewards.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", help="recipes and overrides")
    parser.add_argument("--episodes", type=int, default=256, help="of a set")
    parser.add_argument("--sets", type=int, default=6)
    parser.add_argument("--algorithm", choices=("rloo", "guided-rloo"), default="rloo")
    arguments = parser.parse_intermixed_args()
    groups = {"algorithm": arguments.algorithm, "rollout": {"episodes": arguments.episodes}}
    trainer = Trainer(load_config(*arguments.sources, groups))
    found, rewards = zip(*(gradient(trainer, update) for update in range(arguments.sets)), strict=True)
    directions = normalize(torch.stack(found))
    cosines = [float(one @ other) for one, other in itertools.combinations(directions, 2)]
    spread = f"{len(cosines)} pairs between {min(cosines):.3f} and {max(cosines):.3f}"
    print(f"reward {statistics.mean(rewards):.3f}; mean cosine {statistics.mean(cosines):.3f}, {spread}")


if __name__ == "__main__":
    main()
