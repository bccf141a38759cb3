"""An environment of your own, that answers while a text is written. To run it: python examples/own_environment.py"""

import sys

from rlgf import Trainer


def cheers(turns: list[str]) -> str:
    """Said after each turn; None would end the dialogue."""
    return "!"


cheers.stop = "e"  # A turn ends after this text, or where its author ends it.


def all_e(turns: list[list[str]], **columns: object) -> list[float]:
    """The share of the letters of all turns that are an e; what the environment said is not among them."""
    texts = ["".join(said) for said in turns]
    return [text.count("e") / max(len(text), 1) for text in texts]


def main(*overrides: str) -> Trainer:
    own = {"name": "own-environment", "environment": {"turns": 4}, "rollout": {"max_response_tokens": 16}}
    run = Trainer(["examples/letters.yaml", own, *overrides], environment=cheers, reward=all_e)
    run.train()
    return run


if __name__ == "__main__":
    main(*sys.argv[1:])
