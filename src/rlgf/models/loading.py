"""Getting models and tokenizers from a folder, the hub, or nothing; saving policies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from accelerate import PartialState
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlgf.errors import UserError
from rlgf.finite import require_finite_weights
from rlgf.identity import FREE
from rlgf.loads import file_damage, loading
from rlgf.models import lora, weights
from rlgf.models.abilities import abilities
from rlgf.models.dropout import without_dropout
from rlgf.models.encoder_decoder import decoder_start, is_encoder_decoder
from rlgf.models.lora import Adapters
from rlgf.models.quantization import Quantization, quantized
from rlgf.models.scratch import ScratchConfig, architecture, build_scratch
from rlgf.models.text import Codec
from rlgf.models.vocabulary import restrict
from rlgf.registry import resolve

PACKAGED = {
    "smollm2-135m": "rlgf.demo.smollm2:folder",
    "minilm-encoder-decoder": "rlgf.demo.minilm:encoder_decoder_folder",
}
"""Models that come in a Python package: a name for `model:`, and where the function is that unpacks it."""


class ModelConfig(BaseModel):
    """Which model to load: a hub name, a folder, or the name of a packaged one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Default: float32 on a CPU, bfloat16 on a GPU."""
    trust_remote_code: Annotated[bool, FREE] = False
    quantization: Quantization | None = None
    """Keep the weights in 4 or 8 bits; they are then not trained."""

    @property
    def source(self) -> str:
        return str(resolve(self.model, PACKAGED, "model")()) if self.model in PACKAGED else self.model


@dataclass(frozen=True)
class LanguageModel:
    """A causal or encoder-decoder model with its tokenizer, on its device, with dropout off."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    adapters: Adapters | None = None
    """Where adapters are trained and not the model's own weights."""
    without_adapter: bool = False
    """Whether this is what the model is without them."""

    def __post_init__(self) -> None:
        without_dropout(self.model)
        restrict(self.model, self.tokenizer)
        weights.hold_still(self.model)

    @contextmanager
    def running(self) -> Iterator[PreTrainedModel]:
        """The model; with its adapters off, where this stands for the model without them."""
        if self.adapters is None or not self.without_adapter:
            yield self.model
            return
        with self.adapters.running(None):
            yield self.model

    @property
    def trained(self) -> Sequence[nn.Parameter]:
        """The weights that training changes."""
        if self.adapters is not None:
            return self.adapters.parameters(lora.POLICY)
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @property
    def end_id(self) -> int:
        """The token that is written where a text is to end, which `load_language_model` makes sure of."""
        end = self.tokenizer.eos_token_id
        assert isinstance(end, int)
        return end

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Every token that ends a text of this model's, ascending.

        They are those that `transformers`' own ``generate`` stops at, and the tokenizer's: a chat model often ends
        its turn in another token than a document. An id that the tokenizer does not have is left out.
        """
        ends = {self.end_id}
        generation = getattr(self.model, "generation_config", None)
        for config in (generation, self.model.config.get_text_config(decoder=True)):
            found = getattr(config, "eos_token_id", None)
            ends.update([found] if isinstance(found, int) else found or [])
        return tuple(sorted(end for end in ends if 0 <= end < len(self.tokenizer)))

    @cached_property
    def codec(self) -> Codec:
        return Codec(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        """See `Codec.encode`."""
        return self.codec.encode(text)

    def encode_prompt(self, text: str, limit: int, cue: str = "") -> list[int]:
        """A prompt as at most ``limit`` tokens, as the model was trained to read it.

        They are those of ``tokenizer(text)``, so a beginning-of-text token stands where the tokenizer puts one,
        once. What the tokenizer puts after a text is for an encoder alone: a causal model goes on from there.

        Args:
            cue: the end of a text that loses the end of what stands before its cue where it is too long;
                without a cue it loses its beginning.
        """
        ids, room = self.codec.encode_prompt(text), self._room(limit)
        if len(ids) > room and cue:
            first = self.codec.encode_prompt(text.removesuffix(cue))
            last, _ = self.codec.continuation(cue, first, prompt=True)
            ids = first[: max(0, room - len(last))] + last
        return self.as_prompt(ids, limit)

    def as_prompt(self, ids: Sequence[int], limit: int) -> list[int]:
        """The last of a prompt's own tokens that fit, and what the tokenizer puts around them; at least one."""
        # A model cannot start from nothing; end-of-text is what stands before a text in training.
        return self.codec.surround(ids, limit, ends=is_encoder_decoder(self.model)) or [self.end_id]

    def _room(self, limit: int) -> int:
        return self.codec.room(limit, ends=is_encoder_decoder(self.model))

    def prefixes(
        self, prompts: Sequence[Sequence[int]], written: Sequence[Sequence[int]]
    ) -> tuple[list[Tensor], list[Tensor] | None]:
        """What `sample_continuations` takes to go on with what has been written after prompts.

        Returns:
            The prefixes, and the encoder's prompts where the model has an encoder.
        """
        if not is_encoder_decoder(self.model):
            return [torch.tensor([*p, *w]) for p, w in zip(prompts, written, strict=True)], None
        start = decoder_start(self.model)
        return [torch.tensor([*start, *ids]) for ids in written], [torch.tensor(list(ids)) for ids in prompts]

    def context(self, prompt: Sequence[int], written: Sequence[int] = ()) -> list[int]:
        """The tokens that a response goes on from: a decoder's text begins anew, a causal model's does not."""
        return list(written) if is_encoder_decoder(self.model) else [*prompt, *written]

    def decode(self, ids: Sequence[int], before: Sequence[int] = ()) -> str:
        """The text of token ids after others, such as a response's after its `context`; see `Codec.decode`."""
        return self.codec.decode(ids, before)

    def continuation(self, text: str, before: Sequence[int]) -> tuple[list[int], bool]:
        """See `Codec.continuation`."""
        ids, altered = self.codec.continuation(text, before)
        if altered and not before and is_encoder_decoder(self.model):
            # The space that would join a text to its prompt: there is nothing before it to be apart from.
            return self.codec.continuation(text.lstrip(" "), before)
        return ids, altered

    def until_end(self, text: str) -> str:
        """A text up to the first token that ends one, where such a token is written out in it."""
        return self.codec.until_end(text, self.end_ids)


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
        return None if config.encoder_layers else config.context
    loaded = load_model_config(config).get_text_config(decoder=True)
    length = getattr(loaded, "max_position_embeddings", None)
    return int(length) if length else None


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
        UserError: There is no model of that name.
    """
    tokenizer: PreTrainedTokenizerBase = _from_pretrained(AutoTokenizer, config)
    return tokenizer


def load_language_model(config: ModelConfig | ScratchConfig, texts: list[str] | None = None) -> LanguageModel:
    """Load a causal or encoder-decoder model for training or inference, dropout off.

    An adapter is merged into its base.

    Args:
        texts: what a model from scratch trains its tokenizer on.

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
        model.to(device())  # type: ignore[arg-type]  # the stub knows strings alone
    language_model = LanguageModel(model, tokenizer)
    # Now, and not hours into a run, is the time to find that it cannot do what is asked.
    abilities(model)
    return language_model


def check_vocabulary(what: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """
    Args:
        what: how a message calls the model.

    Raises:
        UserError: the tokenizer writes ids that the model has no embedding for.
    """
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest < 0:
        raise UserError(f"{what}: its tokenizer has no tokens: its files do not belong together.")
    embeddings = model.get_input_embeddings().weight
    assert isinstance(embeddings, Tensor)
    rows = embeddings.shape[0]
    folder = Path(tokenizer.name_or_path)
    if largest >= rows and folder.is_dir() and not (folder / "tokenizer_config.json").is_file():
        raise UserError(
            f"{what}: {folder} has no tokenizer_config.json, and without it its tokenizer has tokens that the model "
            "does not know."
        )
    if largest >= rows:
        raise UserError(
            f"{what}: its tokenizer's largest token id is {largest}, and the model has embeddings for {rows} tokens: "
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


def _factory(config: ModelConfig) -> Any:
    """What loads the model's architecture.

    Raises:
        UserError: it is not an architecture that writes text.
    """
    loaded = load_model_config(config)
    factories: list[Any] = [AutoModelForSeq2SeqLM, AutoModelForCausalLM]
    if not loaded.is_encoder_decoder:
        # Some models that write without an encoder, such as speech models, are listed with those that have one.
        factories.reverse()
    for factory in factories:
        if type(loaded) in factory._model_mapping or factory.__name__ in (
            getattr(loaded, "auto_map", None) or {}
        ):
            return factory
    raise UserError(
        f"model '{config.model}' is of the architecture '{loaded.model_type}', which writes no text: choose a "
        "causal or an encoder-decoder language model."
    )


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
