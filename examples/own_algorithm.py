"""A new algorithm is a new row: here GRPO whose groups start inside the data set's own texts.

    python examples/own_algorithm.py

The same row in a recipe:

    algorithm:
      base: grpo
      name: reference-grpo
      script: {rollin: reference}
      help: {probability: {start: 0.8, end: 0.0}}
"""

from __future__ import annotations

import sys

from rlgf import Trainer

ROW = {
    "base": "grpo",
    "name": "reference-grpo",
    "script": {"rollin": "reference"},
    "help": {"probability": {"start": 0.8, "end": 0.0}},
}


def main(*overrides: str) -> Trainer:
    trainer = Trainer(["examples/letters.yaml", {"name": "reference-grpo", "algorithm": ROW}, *overrides])
    trainer.train()
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
