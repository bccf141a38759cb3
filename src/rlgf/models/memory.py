"""How large models are, and how much their passes hold beside the weights, from configurations and shapes alone.

The formulas are those of docs/scaling.md. They are of what grows with the number of tokens; what a library keeps for
a moment inside a layer is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rlgf.distributed import device
from rlgf.models import lora
from rlgf.models.checkpointing import layers_of
from rlgf.models.loading import ModelConfig, skeleton
from rlgf.models.lora import Adapters, LoRAConfig
from rlgf.models.parts import beside_texts
from rlgf.models.response_scores import MOST_LOGITS
from rlgf.models.scratch import ScratchConfig
from rlgf.models.weights import Quantization

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_FLOAT = _BYTES["float32"]
_QUANTIZED = {"4bit": 0.5 + _FLOAT / 64, "8bit": 1.0}
"""Bytes per weight; of 4 bits each block of 64 weights has a scale."""


@dataclass(frozen=True)
class Size:
    name: str
    parameters: int
    bytes: int
    trained: int = 0
    """How many of the parameters are."""

    @property
    def gradients(self) -> int:
        """Bytes of its gradients, in float32."""
        return _FLOAT * self.trained

    @property
    def moments(self) -> int:
        """Bytes of AdamW's two moments, in float32."""
        return 2 * self.gradients


def policy_sizes(
    source: ModelConfig | ScratchConfig,
    adapter: LoRAConfig | None,
    critic: str,
    critics: Iterable[str],
) -> tuple[Sequence[Size], Shape]:
    """The policy, its frozen start and its critics, and what the policy's passes hold.

    A model from scratch is counted with all of the vocabulary that it may have.

    Args:
        critic: the kind, see `build_critic`.
        critics: whose values there are.

    Raises:
        UserError: there is no such model.
    """
    model = skeleton(source)
    kind = source.quantization if isinstance(source, ModelConfig) else None
    head, trunk = head_size(model)[1] + 1, count(model.base_model.parameters())
    beside = sum(count(model.get_submodule(name).parameters()) for name in beside_texts(model))
    base = Size("policy", count(model.parameters()), _weights(model, kind))
    if adapter is None:
        reference = Size("reference (frozen start)", base.parameters, base.bytes)
        parts, inside = [replace(base, trained=base.parameters - beside), reference], trunk
    else:
        inside, beside = count(Adapters(model, adapter).parameters(lora.POLICY)), 0
        # Without its adapter the policy is its own reference.
        parts = [base, _trained("policy's adapter", inside)]
    if critic != "separate":
        inside = beside = 0
    for name in critics:
        parts.append(_trained(f"critic of the {name}", head + inside, beside))
    return parts, shape(model)


def frozen_size(name: str, source: ModelConfig) -> Size:
    """A model that is only run, such as a local guide.

    Raises:
        UserError: there is no such model.
    """
    model = skeleton(source)
    dtype = source.dtype or ("float32" if device().type == "cpu" else "bfloat16")
    return Size(name, count(model.parameters()), _weights(model, source.quantization, _BYTES[dtype]))


def logits_bytes(vocabulary: int, prompt: int, response: int, budget: int, rows: int) -> int:
    """The most logits of the policy that are there at once, in float32: those at the response positions of the
    largest micro-batch, or what `rlgf.models.response_scores` keeps of them.

    Args:
        prompt: tokens of the longest prompt, as ``response`` of a response.
        budget: ``update.max_micro_tokens``.
        rows: episodes of an optimizer step.
    """
    together = min(rows, max(1, budget // (prompt + response)))
    return min(together * response * vocabulary, MOST_LOGITS) * _FLOAT


def device_bytes() -> int:
    """The memory of the device that models are loaded to; of a machine what it can swap out counts too."""
    where = device()
    if where.type == "cuda":
        return int(torch.cuda.get_device_properties(where).total_memory)
    return int(psutil.virtual_memory().total + psutil.swap_memory().total)


def _trained(name: str, parameters: int, frozen: int = 0) -> Size:
    return Size(name, parameters, _FLOAT * parameters, trained=parameters - frozen)


def _weights(model: PreTrainedModel, kind: Quantization | None, each: int = _FLOAT) -> int:
    """Bytes of the weights; the matrices of all layers but the head are quantized."""
    head = model.get_output_embeddings()
    small = 0
    if kind is not None:
        small = sum(m.weight.numel() for m in matrices(model.modules()) if m is not head)
    return round((count(model.parameters()) - small) * each + (small * _QUANTIZED[kind] if kind else 0))


@dataclass(frozen=True)
class Stack:
    """Layers that read the same tokens; all numbers are of one token, except for parameters."""

    activations: int
    """Numbers that the backward pass needs: what goes into each matrix and what comes out of it."""
    borders: int
    """Numbers that are left of them where each layer is computed a second time: what goes into the layers."""
    largest_layer: int
    """Numbers that one layer needs, at most."""
    attention: int
    """Numbers for each token that a token attends to; 0 where attention is one kernel that keeps none."""
    widest: int
    """What goes into and comes out of the largest matrix."""

    def kept(self, tokens: int, length: int, *, checkpointing: bool) -> int:
        """Numbers that one pass keeps for its backward pass, at most.

        Args:
            length: of the longest text.
            checkpointing: whether layers are computed a second time.
        """
        each = self.activations + self.attention * length
        if checkpointing:
            each = min(each, self.borders + self.largest_layer + self.attention * length)
        return tokens * each


@dataclass(frozen=True)
class Shape:
    """What the passes of a model hold."""

    vocabulary: int
    prompt: Stack
    """The layers that read prompts: of an encoder-decoder model the encoder's, else all."""
    response: Stack
    """Likewise for responses."""
    cache: int
    """Keys and values of one token, of all layers."""
    gathered_layer: int
    """Parameters that are gathered at a time where processes share them: the largest layer's, and those in no
    layer."""


def shape(model: PreTrainedModel) -> Shape:
    """Counted from a model that may be on the device `meta`."""
    head = model.get_output_embeddings()
    encoder: Any = model.get_encoder() if model.config.is_encoder_decoder else None
    inside = set() if encoder is None else set(encoder.modules())
    unread = {part for name in beside_texts(model) for part in model.get_submodule(name).modules()}
    outside = [module for module in model.modules() if module not in inside | unread | {head}]
    response = _stack(model, outside)
    return Shape(
        vocabulary=head_size(model)[0],
        prompt=response if encoder is None else _stack(model, inside),
        response=response,
        cache=_keys_and_values(model),
        gathered_layer=_gathered_layer(model),
    )


def count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def head_size(model: PreTrainedModel) -> tuple[int, int]:
    """The sizes of the vocabulary, and of the last hidden states, which are what the head reads."""
    weight = getattr(model.get_output_embeddings(), "weight", None)
    if isinstance(weight, Tensor):
        vocabulary, width = weight.shape
        return vocabulary, width
    config: Any = model.config.get_text_config(decoder=True)
    return config.vocab_size, config.hidden_size


def matrices(modules: Iterable[nn.Module]) -> list[nn.Linear | Conv1D]:
    return [module for module in modules if isinstance(module, nn.Linear | Conv1D)]


def _stack(model: PreTrainedModel, modules: Iterable[nn.Module]) -> Stack:
    modules = list(modules)
    found = [sum(matrix.weight.shape) for matrix in matrices(modules)]
    layers = layers_of(modules)
    within = [sum(sum(matrix.weight.shape) for matrix in matrices(layer.modules())) for layer in layers]
    config: Any = model.config.get_text_config(decoder=True)
    spelled_out = getattr(config, "_attn_implementation", None) == "eager"
    return Stack(
        activations=sum(found),
        borders=len(layers) * head_size(model)[1] if layers else sum(found),
        largest_layer=max(within, default=0),
        # Scores before and after the softmax.
        attention=2 * _number(config, "num_attention_heads", 1) * len(layers) if spelled_out else 0,
        widest=max(found, default=0),
    )


def _keys_and_values(model: PreTrainedModel) -> int:
    """Of one token in all layers; a window or a latent that is smaller than that is not known here."""
    config: Any = model.config.get_text_config(decoder=True)
    heads = _number(config, "num_attention_heads", 1)
    groups = _number(config, "num_key_value_heads", heads)
    each = _number(config, "head_dim", _number(config, "d_kv", config.hidden_size // heads))
    return 2 * _number(config, "num_decoder_layers", config.num_hidden_layers) * groups * each


def _number(config: Any, name: str, otherwise: int) -> int:
    found = getattr(config, name, None)
    return found if isinstance(found, int) else otherwise


def _gathered_layer(model: PreTrainedModel) -> int:
    layers = [count(layer.parameters()) for layer in layers_of(model.modules())]
    return count(model.parameters()) - sum(layers) + max(layers, default=0)
