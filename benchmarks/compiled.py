"""Whether `torch.compile` of a small GPT's layers pays in learning.

    python benchmarks/compiled.py

16 texts of 112 tokens through the trunk and back, layers as they are and compiled for any length, in turns.
"""

from __future__ import annotations

import copy
import statistics
import time

import torch
from transformers import PreTrainedModel

from common import reviews, small_gpt

TEXTS, TOKENS, ROUNDS = 16, 112, 9


def pass_and_gradient(model: PreTrainedModel, ids: torch.Tensor) -> float:
    """Seconds of one."""
    began = time.perf_counter()
    model.zero_grad()
    hidden = model.transformer(input_ids=ids, use_cache=False).last_hidden_state
    hidden.square().mean().backward()
    return time.perf_counter() - began


def main() -> None:
    plain = small_gpt(reviews(1)[1]).model
    compiled = copy.deepcopy(plain)
    for layer in compiled.transformer.h:
        layer.compile(dynamic=True)
    ids = torch.randint(0, plain.config.vocab_size, (TEXTS, TOKENS))
    first = pass_and_gradient(compiled, ids)
    pass_and_gradient(compiled, ids[:, : TOKENS - 8])
    pass_and_gradient(plain, ids)
    ratios = sorted(pass_and_gradient(compiled, ids) / pass_and_gradient(plain, ids) for _ in range(ROUNDS))
    print(f"the first compiled pass takes {first:.0f} s")
    print(f"compiled / plain: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
