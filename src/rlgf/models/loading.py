"""Getting models and tokenizers from a folder, the hub, or nothing; saving policies."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from pydantic import BaseModel, ConfigDict
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlgf.errors import UserError
from rlgf.models import smollm2
from rlgf.models.scratch import ScratchConfig, build_scratch

PACKAGED = {"smollm2-135m": smollm2.folder}
"""Models that come in a Python package: a name for `model:` and the function that unpacks it."""


class ModelConfig(BaseModel):
    """Which model to load: a hub name, a folder, or the name of a packaged one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Default: float32 on a CPU, bfloat16 on a GPU."""
    trust_remote_code: bool = False

    @property
    def source(self) -> str:
        return str(PACKAGED[self.model]()) if self.model in PACKAGED else self.model


@dataclass(frozen=True)
class LanguageModel:
    """A causal model with its tokenizer, on its device, with dropout off."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def end_id(self) -> int:
        """The end-of-text token, which `load_language_model` makes sure of."""
        end = self.tokenizer.eos_token_id
        assert isinstance(end, int)
        return end

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as it stands, without special tokens."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, without special tokens and without tidying up spaces."""
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text


def device() -> torch.device:
    """This process's GPU, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", PartialState().local_process_index)
    return torch.device("cpu")


def context_length(config: ModelConfig | ScratchConfig) -> int | None:
    """How many tokens the model can read, from its configuration alone.

    Raises:
        UserError: There is no model of that name.
    """
    if isinstance(config, ScratchConfig):
        return config.context
    loaded = load_model_config(config)
    length = getattr(loaded.get_text_config(), "max_position_embeddings", None)
    return int(length) if length else None


def load_model_config(config: ModelConfig) -> PreTrainedConfig:
    loaded: PreTrainedConfig = _from_pretrained(AutoConfig, config)
    return loaded


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """A model's tokenizer.

    Raises:
        UserError: There is no model of that name.
    """
    tokenizer: PreTrainedTokenizerBase = _from_pretrained(AutoTokenizer, config)
    return tokenizer


def load_language_model(config: ModelConfig | ScratchConfig, texts: list[str] | None = None) -> LanguageModel:
    """Load a causal model for training or inference, dropout off.

    Args:
        texts: what a model from scratch trains its tokenizer on.

    Raises:
        UserError: There is no such model, or it is not a causal language model.
    """
    tokenizer: PreTrainedTokenizerBase
    if isinstance(config, ScratchConfig):
        assert texts is not None, "a model from scratch trains its tokenizer on the task's text"
        model, tokenizer = build_scratch(config, texts)
    else:
        dtype = config.dtype or ("float32" if device().type == "cpu" else "bfloat16")
        model = _from_pretrained(AutoModelForCausalLM, config, dtype=getattr(torch, dtype))
        tokenizer = load_tokenizer(config)
        if tokenizer.eos_token_id is None:
            raise UserError(f"model '{config.model}': its tokenizer has no end-of-text token (eos_token).")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
    # Dropout would make the probability ratio of an unchanged policy differ from 1.
    return LanguageModel(model.eval().to(device()), tokenizer)


def _from_pretrained(factory: Any, config: ModelConfig, **options: Any) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=FutureWarning)
            return factory.from_pretrained(
                config.source,
                revision=config.revision or "main",
                trust_remote_code=config.trust_remote_code,
                **options,
            )
    except (OSError, ValueError) as error:
        hint = "Give a folder that `save_pretrained` wrote, a hub name, or one of: " + ", ".join(PACKAGED)
        where = (
            "has no model in it"
            if Path(config.source).is_dir()
            else "is no folder, and the hub did not give it"
        )
        raise UserError(f"model '{config.model}' cannot be loaded: it {where}. {hint}.") from error
