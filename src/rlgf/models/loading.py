"""Getting models and tokenizers from a folder, the hub, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.hub import cached_file

from rlgf.chat import set_defaults
from rlgf.distributed import device
from rlgf.errors import UserError
from rlgf.finite import require_finite_weights
from rlgf.identity import FREE, LATER
from rlgf.loads import file_damage, lacks_tokenizer, loading
from rlgf.models import lora, weights
from rlgf.models.abilities import abilities
from rlgf.models.language_model import LanguageModel
from rlgf.models.parts import beside_texts
from rlgf.models.scratch import ScratchConfig, architecture, build_scratch
from rlgf.models.vocabulary import readable, unread
from rlgf.models.weights import Quantization, quantized
from rlgf.registry import resolve
from rlgf.strict import Strict

PACKAGED = {
    "smollm2-135m": "rlgf.demo.models:smollm2_folder",
    "minilm-encoder-decoder": "rlgf.demo.models:encoder_decoder_folder",
}
"""Models that come in a Python package: a name for `model:`, and where the function is that unpacks it."""


ChatOptions = dict[Annotated[str, Field(pattern=r"^[A-Za-z]\w*$")], bool | int | float | str]
"""Values of variables of a chat template, by name."""


class ModelConfig(Strict):
    """Which model to load: a hub name, a folder, or the name of a packaged one."""

    model: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Default: float32 on a CPU, bfloat16 on a GPU."""
    trust_remote_code: Annotated[bool, FREE] = False
    quantization: Quantization | None = None
    """Keep the weights in 4 or 8 bits; they are then not trained."""
    chat_template_kwargs: Annotated[ChatOptions, LATER] = {}
    """What its chat template is told besides the messages, such as ``{enable_thinking: false}``."""

    @property
    def source(self) -> str:
        return str(resolve(self.model, PACKAGED, "model")()) if self.model in PACKAGED else self.model


_COUNTED_FROM_PADDING = frozenset(
    [
        "camembert",
        "data2vec-text",
        "ibert",
        "longformer",
        "luke",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    ]
)
"""Architectures whose first position is the one after the padding token's id, so that they hold fewer tokens."""


def context_of(config: PreTrainedConfig, *, encoder: bool = False) -> int | None:
    """How many tokens a model of that configuration can read, and give each the same probability in a longer text.

    With the rotary positions of the kind ``longrope``, as in Phi 3, a text of more than
    ``original_max_position_embeddings`` tokens is read with other frequencies from its first token on.

    Args:
        encoder: whether an encoder-decoder's encoder is meant, and not what writes.
    """
    part = getattr(config, "encoder", None) if encoder else None
    text = (part if isinstance(part, PreTrainedConfig) else config).get_text_config(decoder=True)
    rope = getattr(text, "rope_parameters", None) or {}
    changes = rope.get("rope_type") == "longrope"
    length = rope.get("original_max_position_embeddings") if changes else None
    # LED has one for each side.
    names = (f"max_{'en' if encoder else 'de'}coder_position_embeddings", "max_position_embeddings")
    length = length or next(filter(None, (getattr(text, name, None) for name in names)), None)
    first = (text.pad_token_id or 0) + 1 if text.model_type in _COUNTED_FROM_PADDING else 0
    # XLNet, which has no limit, says -1.
    return int(length) - first if length and length > 0 else None


def load_model_config(config: ModelConfig) -> PreTrainedConfig:
    """A model's configuration; an adapter's is that of its base.

    Raises:
        UserError: There is no model of that name.
    """
    base = _adapter_base(config)
    if base is not None:
        return load_model_config(base)
    loaded: PreTrainedConfig = _from_pretrained(AutoConfig, config)
    return loaded


def skeleton(config: ModelConfig | ScratchConfig) -> PreTrainedModel:
    """A model as its configuration describes it, on the device `meta`: every shape and no weights.

    A model from scratch has the largest vocabulary that it may have.

    Raises:
        UserError: There is no model of that name, or it is not an architecture that writes text.
    """
    model: PreTrainedModel
    with torch.device("meta"):
        if isinstance(config, ScratchConfig):
            return architecture(config, config.vocabulary, 0)
        factory, loaded = _factory(config), load_model_config(config)
        with loading(f"model '{config.model}'", config.source):
            model = factory.from_config(loaded, trust_remote_code=config.trust_remote_code)
    return model


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """A model's tokenizer.

    Raises:
        UserError: There is no model of that name, or its folder has no tokenizer.
    """
    require_tokenizer(config.model, config.source)
    tokenizer: PreTrainedTokenizerBase = _from_pretrained(AutoTokenizer, config)
    set_defaults(tokenizer, config.chat_template_kwargs)
    return tokenizer


def require_tokenizer(model: str, source: str) -> None:
    """
    Raises:
        UserError: it is a folder without a tokenizer.
    """
    if lacks_tokenizer(Path(source)):
        raise UserError(
            f"model '{model}' cannot be loaded: {source} has no tokenizer, such as tokenizer.json: save it there too, with "
            "`tokenizer.save_pretrained`."
        )


def load_language_model(
    config: ModelConfig | ScratchConfig, texts: list[str] | None = None, where: torch.device | None = None
) -> LanguageModel:
    """Load a causal or encoder-decoder model for training or inference, dropout off.

    An adapter is merged into its base.

    Args:
        texts: what a model from scratch trains its tokenizer on.
        where: the device that it is put on; default: this process's own.

    Raises:
        UserError: There is no such model, weights are missing, or it cannot write text.
    """
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    if isinstance(config, ScratchConfig):
        assert texts is not None, "a model from scratch trains its tokenizer on the task's text"
        model, tokenizer = build_scratch(config, texts)
    else:
        model = _load_model(config)
        require_finite_weights(f"model '{config.model}'", model.named_parameters())
        tokenizer = load_tokenizer(config)
        check_vocabulary(f"model '{config.model}'", model, tokenizer)
        if tokenizer.eos_token_id is None:
            raise UserError(f"model '{config.model}': its tokenizer has no end-of-text token (eos_token).")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
    if isinstance(config, ScratchConfig) or config.quantization is None:
        model.to(where or device())  # type: ignore[arg-type]  # the stub knows strings alone
    language_model = LanguageModel(model, tokenizer)
    # Now, and not hours into a run, is the time to find that it cannot do its work.
    abilities(model)
    return language_model


def check_vocabulary(what: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Special tokens that were added to a tokenizer may be more than the model reads, as in Gemma 3 without images.

    Args:
        what: how a message calls the model.

    Raises:
        UserError: the tokenizer writes ids that the model has no embedding for.
    """
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest < 0:
        raise UserError(f"{what}: its tokenizer has no tokens: its files do not belong together.")
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    names = ("bos", "eos", "pad", "unk", "sep", "cls")
    if unread(model, tokenizer) <= added - {getattr(tokenizer, f"{name}_token_id", None) for name in names}:
        return
    folder = Path(tokenizer.name_or_path)
    if tokenizer.name_or_path and folder.is_dir() and not (folder / "tokenizer_config.json").is_file():
        raise UserError(
            f"{what}: {folder} has no tokenizer_config.json, and without it its tokenizer has tokens that the model "
            "does not know."
        )
    raise UserError(
        f"{what}: its tokenizer's largest token id is {largest}, and the model has embeddings for {readable(model)} tokens: "
        "the tokenizer is not the model's, or the embeddings were not resized with it."
    )


def _load_model(config: ModelConfig) -> PreTrainedModel:
    base = _adapter_base(config)
    if base is not None:
        return lora.merged(_load_model(base), config.source, config.revision)
    dtype = config.dtype or ("float32" if device().type == "cpu" else "bfloat16")
    factory = _factory(config)
    options: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    if config.quantization is not None:
        options |= quantized(config.quantization, options["dtype"], device())
    model: PreTrainedModel
    model, report = _from_pretrained(factory, config, **options, **weights.REPORTED)
    weights.check_complete(config.model, model, report)
    # What it names ends texts, and the library goes on without it where it cannot be read.
    found = file_damage(Path(config.source) / "generation_config.json")
    if found is not None:
        raise UserError(f"model '{config.model}' cannot be loaded: {found}.")
    return model


def auto_class(config: PreTrainedConfig) -> Any:
    """Which of the classes of `transformers` loads a model that writes text; None where none does.

    One that also sees is loaded whole, where another class has its part for text alone. Llama 4 is not: whole, it fails on
    text alone (transformers 5.24).
    """
    factories: list[Any] = [AutoModelForSeq2SeqLM, AutoModelForCausalLM]
    if config.model_type != "llama4":
        factories.append(AutoModelForImageTextToText)
    if not config.is_encoder_decoder:
        # Some models that write without an encoder, such as speech models, are listed with those that have one.
        factories.reverse()
    own = getattr(config, "auto_map", None) or {}
    return next((f for f in factories if type(config) in f._model_mapping or f.__name__ in own), None)


def _factory(config: ModelConfig) -> Any:
    """What loads the model's architecture.

    Raises:
        UserError: it is not an architecture that writes text.
    """
    loaded = load_model_config(config)
    found = auto_class(loaded)
    if found is None:
        raise UserError(
            f"model '{config.model}' is of the architecture '{loaded.model_type}', which writes no text: choose a "
            "causal or an encoder-decoder language model."
        )
    return found


def _adapter_base(config: ModelConfig) -> ModelConfig | None:
    """Where it names an adapter, the model that this belongs to."""
    base = lora.adapter_base(config.source, config.revision)
    return None if base is None else config.model_copy(update={"model": base, "revision": None})


def _from_pretrained(factory: Any, config: ModelConfig, **options: Any) -> Any:
    with loading(f"model '{config.model}'", config.source, _REMEDY):
        return factory.from_pretrained(
            config.source,
            revision=config.revision or "main",
            trust_remote_code=config.trust_remote_code,
            **options,
        )


_REMEDY = "give a folder that `save_pretrained` wrote, a hub name, or one of: " + ", ".join(PACKAGED)


_PROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")


def processor_files(model: PreTrainedModel) -> list[Path]:
    """The files that say how an image or a sound becomes numbers for a model, from where it was loaded."""
    source = next(iter(lora.layers(model)), model.name_or_path)
    if not source or not beside_texts(model):
        return []
    # What is not there, or cannot be reached, is left out: no text asks for it.
    quietly = dict.fromkeys(
        (f"_raise_exceptions_for_{what}" for what in ("gated_repo", "missing_entries", "connection_errors")),
        False,
    )
    revision = getattr(model.config, "_commit_hash", None)
    found = (cached_file(source, name, revision=revision, **quietly) for name in _PROCESSORS)
    return [Path(path) for path in found if path is not None]
