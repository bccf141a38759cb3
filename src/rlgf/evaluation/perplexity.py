"""How likely a language model finds texts, in the model's own tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rlgf.models.language_model import LanguageModel
from rlgf.models.response_scores import text_scores
from rlgf.rollout.writers import prompt_tokens, splice
from rlgf.types import Completion, Sample


def text_nll(
    language_model: LanguageModel,
    samples: Sequence[Sample],
    texts: Sequence[str],
    *,
    max_prompt_tokens: int,
    max_tokens: int,
    max_batch_tokens: int,
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Negative log-likelihood of each text after its sample's prompt, as the model itself would give it.

    Returns:
        Sums of nats (B,) and numbers of tokens (B,), over at most ``max_tokens`` tokens per text.
    """
    scored = []
    for sample, text in zip(samples, texts, strict=True):
        before = prompt_tokens(language_model, sample, max_prompt_tokens)
        passage = splice(language_model, Completion(text, False), max_tokens, language_model.context(before))
        scored.append((before, passage.ids))
    with language_model.running() as model:
        logprobs = text_scores(model, scored, 1.0, max_batch_tokens)
    return -torch.tensor([sum(one) for one in logprobs]), torch.tensor([float(len(one)) for one in logprobs])


def perplexity(nll: Float[Tensor, "B"], tokens: Float[Tensor, "B"]) -> float:
    """``exp(sum of nats / number of tokens)`` over all texts."""
    # Infinite, and no error, where texts are too improbable for a number.
    return float(torch.exp(nll.double().sum() / tokens.sum().clamp(min=1)))


def perplexities(nll: Float[Tensor, "B"], tokens: Float[Tensor, "B"]) -> list[float]:
    """The same for each text alone."""
    values: list[float] = torch.exp(nll / tokens.clamp(min=1)).tolist()
    return values
