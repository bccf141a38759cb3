"""What a trainer says of objects of another type than it takes, a sentence a line."""

from __future__ import annotations

from typing import Any

from accelerate.tracking import GeneralTracker

from rlgf.errors import UserError
from rlgf.run.trainer import Trainer
from toys import StopWhenLearned, letter_gpt, letter_tokenizer

RECIPE: dict[str, Any] = {"algorithm": "rloo", "task": "toys:LetterTask", "reward": "toys:share_of_a"}
FITS = {"policy": letter_gpt().model, "tokenizer": letter_tokenizer("abcd")}
UNFIT: list[dict[str, Any]] = [
    {"policy": "gpt2"},
    {"tokenizer": "gpt2"},
    {"task": 3},
    {"reward": "owner/name"},
    {"reward": [print, None]},
    {"optimizer": "adam"},
    {"scheduler": "linear"},
    {"callbacks": StopWhenLearned()},
    {"callbacks": [3]},
    {"guide": print},
    {"trackers": [GeneralTracker]},
    {"config": None},
    {"config": [RECIPE, 3]},
]

for given in UNFIT:
    try:
        Trainer(**{"config": RECIPE, **FITS, **given})
    except UserError as error:
        print(error)
