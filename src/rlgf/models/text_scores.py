"""Log-probabilities of texts that follow prompts, as one model has them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from rlgf.models.batching import length_batches
from rlgf.models.forward import Tokens
from rlgf.models.response_scores import response_scores
from rlgf.models.sampling import Sampling
from rlgf.types import padded


@torch.no_grad()
def text_scores(
    model: PreTrainedModel,
    texts: Sequence[tuple[Sequence[int], Sequence[int]]],
    temperature: float,
    max_batch_tokens: int,
) -> list[list[float]]:
    """Log-probability of each token of each text.

    Args:
        texts: a prompt, of one token or more, and the tokens after it, which may be none.
        max_batch_tokens: rows times positions of one pass.
    """
    found: list[list[float]] = [[] for _ in texts]
    there = [number for number, (_, ids) in enumerate(texts) if ids]
    prompts, ends = (torch.tensor([len(texts[n][side]) for n in there], dtype=torch.long) for side in (0, 1))
    for rows in length_batches(prompts, ends, max_batch_tokens):
        chosen = [there[row] for row in rows.tolist()]
        before, after = ([texts[number][side] for number in chosen] for side in (0, 1))
        tokens = Tokens(*padded(before, 0, left=True), *padded(after, 0))
        scores = response_scores(model, tokens.to(model.device), Sampling(temperature=temperature), ())
        for number, logprobs in zip(chosen, scores.logprobs.float().cpu(), strict=True):
            found[number] = logprobs[: len(texts[number][1])].tolist()
    return found
