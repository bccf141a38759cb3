"""Which part of a model writes text, and which parts no text passes through."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from rlgf.models.encoder_decoder import is_encoder_decoder


def under_head(model: PreTrainedModel) -> nn.Module:
    """The network whose output the head reads, and whose first output is the last hidden states.

    They are taken from there since ``hidden_states[-1]`` is, of some models, before the last
    normalization or a projection.
    """
    network: Any = model.get_decoder()
    if not is_encoder_decoder(model) and not isinstance(network, PreTrainedModel):
        network = model.base_model  # ModernBERT calls its head a decoder
    # The decoder of an `EncoderDecoderModel` has a head of its own.
    found: nn.Module = getattr(network, "base_model", network)
    return found


def beside_texts(model: PreTrainedModel) -> list[str]:
    """The parts of a causal model that also sees or hears, through which no text passes, such as its vision tower."""
    if is_encoder_decoder(model) or model.config.get_text_config(decoder=True) is model.config:
        return []
    parts = (under_head(model), model.get_input_embeddings(), model.get_output_embeddings())
    read = {id(weight) for part in parts if part is not None for weight in part.parameters()}
    found: list[str] = []
    for name, module in model.named_modules():
        own = {id(weight) for weight in module.parameters()}
        if own and not own & read and not name.startswith(tuple(f"{part}." for part in found)):
            found.append(name)
    return found
