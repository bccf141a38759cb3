"""Log-probabilities of texts that follow prompts, as one model has them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from rlgf.models.batching import length_batches
from rlgf.models.forward import Tokens
from rlgf.models.response_scores import response_scores
from rlgf.models.sampling import Sampling
from rlgf.types import pad


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
    prompts = [torch.tensor(list(texts[number][0])) for number in there]
    ids = [torch.tensor(list(texts[number][1])) for number in there]
    lengths = [torch.tensor([len(one) for one in side], dtype=torch.long) for side in (prompts, ids)]
    for rows in length_batches(lengths[0], lengths[1], max_batch_tokens):
        chosen = rows.tolist()
        before, after = ([side[row] for row in chosen] for side in (prompts, ids))
        tokens = Tokens(
            pad(before, 0, left=True),
            pad([torch.ones_like(one, dtype=torch.bool) for one in before], False, left=True),
            pad(after, 0),
            pad([torch.ones_like(one, dtype=torch.bool) for one in after], False),
        )
        scores = response_scores(model, tokens.to(model.device), Sampling(temperature=temperature), ())
        for row, logprobs in zip(chosen, scores.logprobs.float().cpu(), strict=True):
            found[there[row]] = logprobs[: len(ids[row])].tolist()
    return found
