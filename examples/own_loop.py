"""A training loop of your own: the three steps of an update are methods, and the run moves with them.

python examples/own_loop.py        # ends in the same bytes as: rlgf train examples/letters.yaml
"""

from __future__ import annotations

import sys

from rlgf import Trainer, load_config


def main(*overrides: str) -> Trainer:
    config = load_config("examples/letters.yaml", *overrides)
    trainer = Trainer(config)
    while trainer.progress.update < config.training.updates:
        rollout = trainer.collect()  # who writes what, as the algorithm says
        experience = trainer.assess(rollout)  # rewards, KL penalty, advantages
        metrics = trainer.learn(experience)  # the optimizer steps; the update is over
        print(f"{trainer.progress.update:3} reward {metrics['reward']:.2f} {rollout.texts[0]!r}")
    trainer.save_model(config.folder / "policy")
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
