"""Frozen weights in 4 or 8 bits through `bitsandbytes`, which is optional (Dettmers et al., arXiv 2305.14314)."""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from rlgf.errors import UserError

Quantization = Literal["4bit", "8bit"]
"""NormalFloat 4, or 8-bit integers (LLM.int8, arXiv 2208.07339)."""


def quantized(kind: Quantization, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` that load a model so, straight onto a device.

    Raises:
        UserError: `bitsandbytes` is not installed, or cannot compute on the device; before anything loads.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"'quantization: {kind}' needs bitsandbytes: pip install 'rlgf[quantization]'.")
    from bitsandbytes import functional

    try:
        functional.quantize_4bit(torch.zeros(64, 64, device=device))
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"'quantization: {kind}' does not work here: this bitsandbytes has no support for the device "
            f"'{device}' ({error}); install a newer one, or leave 'quantization' out."
        ) from error
    if kind == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    return {"quantization_config": config, "device_map": {"": device}}


def keep_differentiable(model: nn.Module) -> None:
    """Keep the layers of a quantized model from being rewritten for inference.

    Where a CPU can multiply in bfloat16 (AVX512-BF16), a 4-bit layer repacks its weights at the first pass without
    gradients. From then on no gradient comes through it to the adapters below, and it computes in bfloat16.
    """
    name = "support_avx512bf16_for_cpu"
    for module in model.modules():
        if hasattr(module, name):
            setattr(module, name, False)


def rewritten(model: nn.Module) -> bool:
    """Whether a model's 4-bit layers were repacked for inference before `keep_differentiable` could keep them."""
    states = (getattr(parameter, "quant_state", None) for parameter in model.parameters())
    return any(getattr(state, "packing_format_for_cpu", False) for state in states)
