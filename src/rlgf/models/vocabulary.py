"""The tokens that a model can write: those of its tokenizer, fewer than its head has rows where that is padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlgf.errors import UserError

_ATTRIBUTE = "_rlgf_vocabulary"


@dataclass(frozen=True)
class _Vocabulary:
    size: int
    """All ids of the tokenizer are below this one."""
    never: Int[Tensor, "N"]
    """Ids below ``size`` that are never written."""


def restrict(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Keep with a model, and its copies, which ids it may write.

    The rows of a head that belong to no token are as random as they were drawn, and an id without a token has
    no text. Nor is a token written that the model's own generation configuration forbids always, such as
    Marian's padding.
    """
    ids = set(tokenizer.get_vocab().values())
    size = max(ids) + 1
    # Some configurations forbid -1, which is not a token.
    never = ({*range(size)} - ids) | {i for i in _forbidden(model) if 0 <= i < size}
    setattr(model, _ATTRIBUTE, _Vocabulary(size, torch.tensor(sorted(never), dtype=torch.long)))


def readable(model: PreTrainedModel) -> int:
    """The ids that a model has an embedding for are those below this one."""
    embeddings = model.get_input_embeddings().weight
    assert isinstance(embeddings, Tensor)
    return embeddings.shape[0]


def unread(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of a tokenizer that its model has no embedding for, such as an image's place in a small Gemma 3."""
    count = readable(model)
    return frozenset(i for i in tokenizer.get_vocab().values() if i >= count)


def _forbidden(model: PreTrainedModel) -> Iterator[int]:
    config = getattr(model, "generation_config", None)
    for sequence in getattr(config, "bad_words_ids", None) or []:
        if len(sequence) == 1:
            yield sequence[0]
    yield from getattr(config, "suppress_tokens", None) or []


def read_logits(model: PreTrainedModel, logits: Float[Tensor, "*batch W"]) -> Float[Tensor, "*batch V"]:
    """A forward pass's logits of the tokens that there are, -inf at those that are never written.

    Sampling and scoring read logits here and nowhere else, so both know the same tokens.
    """
    found = getattr(model, _ATTRIBUTE, None)
    if not isinstance(found, _Vocabulary):
        return logits
    logits = logits[..., : found.size]
    never = found.never[found.never < logits.shape[-1]]
    return logits.index_fill(-1, never.to(logits.device), float("-inf")) if len(never) else logits


def writable(model: PreTrainedModel) -> list[int] | None:
    """The ids that a model may write, ascending; None where that is every row of its head."""
    found, head = getattr(model, _ATTRIBUTE, None), model.get_output_embeddings()
    rows = model.config.get_text_config(decoder=True).vocab_size if head is None else len(head.weight)
    if not isinstance(found, _Vocabulary) or (found.size >= rows and not len(found.never)):
        return None
    never = set(found.never.tolist())
    return [i for i in range(min(found.size, rows)) if i not in never]


def known(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that a guide returned.

    Raises:
        UserError: the policy's tokenizer does not have one of them.
    """
    size = len(tokenizer)
    foreign = next((token for token in ids if not 0 <= token < size), None)
    if foreign is not None:
        raise UserError(
            f"a guide returned the token {foreign}, and the policy's tokenizer has those from 0 to {size - 1}: leave "
            "'token_ids' out of its Completion, and its text is tokenized."
        )
    return list(ids)
