"""How large models are, from their configurations alone: no weights are loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psutil
import torch
from transformers import PreTrainedModel

from rlgf.models import lora
from rlgf.models.loading import ModelConfig, device, skeleton
from rlgf.models.lora import Adapters, LoRAConfig
from rlgf.models.passes import Shape, count, matrices, shape, width
from rlgf.models.quantization import Quantization
from rlgf.models.response_scores import MOST_LOGITS
from rlgf.models.scratch import ScratchConfig

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_FLOAT = _BYTES["float32"]
_QUANTIZED = {"4bit": 0.5 + _FLOAT / 64, "8bit": 1.0}
"""Bytes per weight; of 4 bits each block of 64 weights has a scale."""


@dataclass(frozen=True)
class Size:
    """One part of what a run keeps in memory."""

    name: str
    parameters: int
    bytes: int
    trained: bool = False

    @property
    def gradients(self) -> int:
        """Bytes of its gradients, in float32."""
        return _FLOAT * self.parameters if self.trained else 0

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
    head, trunk = width(model) + 1, count(model.base_model.parameters())
    base = Size("policy", count(model.parameters()), _weights(model, kind), trained=adapter is None)
    if adapter is None:
        reference = Size("reference (frozen start)", base.parameters, base.bytes)
        parts, inside = [base, reference], trunk
    else:
        inside = count(Adapters(model, adapter).parameters(lora.POLICY))
        # Without its adapter the policy is its own reference.
        parts = [base, _trained("policy's adapter", inside)]
    for name in critics:
        parts.append(_trained(f"critic of the {name}", head + (inside if critic == "separate" else 0)))
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


def _trained(name: str, parameters: int) -> Size:
    return Size(name, parameters, _FLOAT * parameters, trained=True)


def _weights(model: PreTrainedModel, kind: Quantization | None, each: int = _FLOAT) -> int:
    """Bytes of the weights; the matrices of all layers but the head are quantized."""
    head = model.get_output_embeddings()
    small = 0
    if kind is not None:
        small = sum(m.weight.numel() for m in matrices(model.modules()) if m is not head)
    return round((count(model.parameters()) - small) * each + (small * _QUANTIZED[kind] if kind else 0))
