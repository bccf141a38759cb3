"""What differs where a model reads the prompt with an encoder and writes with a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from rlgf.errors import UserError
from rlgf.types import padded

START_TOKENS = 2
"""What stands before a decoder's text has at most so many tokens; see `decoder_start`."""


@dataclass
class _Encoded(BaseModelOutput):
    """What an encoder says; decoders of Switch and NLLB look for what its experts were asked too."""

    router_logits: tuple[Tensor, ...] | None = None


def is_encoder_decoder(model: PreTrainedModel) -> bool:
    return bool(model.config.is_encoder_decoder)


def decoder_start(model: PreTrainedModel) -> list[int]:
    """What stands before every response of a decoder: the start token and, as in BART, a forced first one.

    As in ``generate`` of `transformers`, the start is the beginning-of-text token where no other is set.

    Raises:
        UserError: the model says of neither which it is.
    """
    if not is_encoder_decoder(model):
        return []
    start = _generation_setting(model, "decoder_start_token_id")
    if start is None:
        start = _generation_setting(model, "bos_token_id")
    if start is None:
        raise UserError(
            f"model '{model.config.name_or_path}' does not say how its decoder starts: set "
            "'decoder_start_token_id' in its generation_config.json."
        )
    forced = _generation_setting(model, "forced_bos_token_id")
    return [start] if forced is None else [start, forced]


def _generation_setting(model: PreTrainedModel, name: str) -> int | None:
    """A token id from the generation configuration or, in older models, from the model's own."""
    for config in (getattr(model, "generation_config", None), model.config):
        value = getattr(config, name, None)
        if isinstance(value, list | tuple):
            value = value[0] if len(value) == 1 else None
        if value is not None:
            return int(value)
    return None


def encode(
    model: PreTrainedModel, prompts: Sequence[Int[Tensor, "_"]]
) -> tuple[Float[Tensor, "N P D"], Bool[Tensor, "N P"]]:
    """The encoder's states of prompts and their mask, padded on the right.

    A prompt that occurs several times, as in a group, is encoded once. Padding is on the right since
    some encoders count positions from the first column.
    """
    numbers: dict[tuple[int, ...], int] = {}
    rows = torch.tensor([numbers.setdefault(tuple(prompt.tolist()), len(numbers)) for prompt in prompts])
    ids, mask = (one.to(model.device) for one in padded(list(numbers), 0))
    states = model.get_encoder()(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    rows = rows.to(model.device)
    return states[rows], mask[rows]


def encoded_inputs(states: Float[Tensor, "N P D"], mask: Bool[Tensor, "N P"]) -> dict[str, Any]:
    """The arguments of a forward pass that say what the encoder has read."""
    return {
        "encoder_outputs": _Encoded(last_hidden_state=states),
        "attention_mask": mask.long(),
    }
