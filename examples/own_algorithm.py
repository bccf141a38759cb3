"""A new algorithm is a new row: here GRPO whose groups start inside the data set's own texts.

    python examples/own_algorithm.py

The same row in a recipe:

    algorithm:
      base: grpo
      name: reference-grpo
      script: {rollin: reference}
      help: {probability: {start: 0.8, end: 0.0}}

Run `rlgf train recipes/start/small_gpt.yaml` once before.
"""

from rlgf import Trainer, load_config

row = {
    "base": "grpo",
    "name": "reference-grpo",
    "script": {"rollin": "reference"},
    "help": {"probability": {"start": 0.8, "end": 0.0}},
}
config = load_config(
    "recipes/imdb.yaml",
    {"algorithm": row, "name": "reference-grpo", "training": {"updates": 10}},
)
Trainer(config).train()
