"""What a trainer says of objects of another type than it takes, a sentence a line."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from accelerate.tracking import GeneralTracker
from torch.nn import DataParallel
from transformers import GPT2LMHeadModel

from rlgf.errors import UserError
from rlgf.run.trainer import Trainer
from toys import StopWhenLearned, letter_gpt, letter_tokenizer

RECIPE: dict[str, Any] = {"algorithm": "rloo", "task": "toys:LetterTask", "reward": "toys:share_of_a"}
FITS = {"policy": letter_gpt().model, "tokenizer": letter_tokenizer("abcd")}
UNFIT: list[dict[str, Any]] = [
    {"policy": "gpt2"},
    {"policy": GPT2LMHeadModel},
    {"policy": DataParallel(FITS["policy"])},
    {"tokenizer": "gpt2"},
    {"tokenizer": SimpleNamespace(tokenizer=letter_tokenizer("abcd"))},
    {"task": 3},
    {"reward": "owner/name"},
    {"reward": [print, None]},
    {"guide": print},
    {"optimizer": "adam"},
    {"scheduler": "linear"},
    {"callbacks": StopWhenLearned()},
    {"callbacks": [3]},
    {"trackers": [GeneralTracker]},
    {"config": None},
    {"config": [RECIPE, 3]},
]

for given in UNFIT:
    try:
        Trainer(**{"config": RECIPE, **FITS, **given})
    except UserError as error:
        print(error)
