"""How likely a language model finds texts, in the model's own tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rlgf.models.language_model import LanguageModel
from rlgf.models.rollout_scores import score_logprobs
from rlgf.models.sampling import Sampling
from rlgf.rollout.assembly import assemble
from rlgf.rollout.writers import Draft, prompt_tokens, splice
from rlgf.types import Author, Completion, Sample


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
    drafts = []
    for sample, text in zip(samples, texts, strict=True):
        prompt_ids = prompt_tokens(language_model, sample, max_prompt_tokens)
        ids = splice(
            language_model, Completion(text, False), max_tokens, language_model.context(prompt_ids)
        ).ids
        draft = Draft(sample, prompt_ids, seed=0)
        draft.ids, draft.authors, draft.logprobs = ids, [Author.REFERENCE] * len(ids), [0.0] * len(ids)
        drafts.append(draft)
    rollout = assemble(drafts, list(range(len(drafts))), language_model)
    with language_model.running() as model:
        logprobs = score_logprobs(model, rollout, Sampling(), language_model.end_ids, max_batch_tokens)
    return -logprobs.sum(dim=1), rollout.lengths.float()


def perplexity(nll: Float[Tensor, "B"], tokens: Float[Tensor, "B"]) -> float:
    """``exp(sum of nats / number of tokens)`` over all texts."""
    # Infinite, and no error, where texts are too improbable for a number.
    return float(torch.exp(nll.double().sum() / tokens.sum().clamp(min=1)))


def perplexities(nll: Float[Tensor, "B"], tokens: Float[Tensor, "B"]) -> list[float]:
    """The same for each text alone."""
    values: list[float] = torch.exp(nll / tokens.clamp(min=1)).tolist()
    return values
