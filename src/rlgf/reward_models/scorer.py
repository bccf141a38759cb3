"""A model that scores texts, which is what `rlgf reward RECIPE` trains: loading it, scoring with it, saving it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from rlgf.chat import ChatTemplate, transcript
from rlgf.distributed import device
from rlgf.errors import UserError
from rlgf.finite import require_finite_weights
from rlgf.loads import loading
from rlgf.models import lora, weights
from rlgf.models.forward import length_batches
from rlgf.models.loading import PACKAGED, check_vocabulary, context_of, require_tokenizer
from rlgf.models.text import Codec
from rlgf.registry import resolve
from rlgf.reward_models.notes import Notes
from rlgf.types import Messages, padded

_PACKAGED = {"minilm": "rlgf.demo.models:minilm_folder", **PACKAGED}
_MAX_BATCH_TOKENS = 8192
_READ_ALONE = frozenset({"convbert", "fnet", "nystromformer", "reformer", "xlnet", "yoso"})
"""Architectures whose scores change with the padding beside a text, whatever the mask says."""
_NO_EMBEDDINGS = frozenset({"canine", "perceiver"})
"""Architectures that read characters or bytes in ways of their own; short texts are too short for them."""


@dataclass(frozen=True)
class Scorer:
    """A model with one output, and its tokenizer; a text over ``max_tokens`` loses its beginning."""

    model: Any
    """A `PreTrainedModel`, or `peft`'s around one."""
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int

    def encode(self, prompts: Sequence[str | Messages], completions: Sequence[str]) -> list[list[int]]:
        """Token ids of each completion after its prompt, as ``tokenizer(prompt + completion)`` gives them.

        Of a chat they are those of the whole conversation, the completion its last message, as the tokenizer's chat
        template writes it; without a template it is written out with the names of the roles.

        A completion ends where it holds the name of the end-of-text token, and the names of other special tokens are
        plain text in it: a text cannot steer its reward by them.
        """
        codec, end = self.codec, self.tokenizer.eos_token_id
        ends = () if end is None else (end,)
        found = []
        for prompt, completion in zip(prompts, completions, strict=True):
            ids = codec.encode_both(*self._told(prompt, codec.until_end(completion, ends)))
            # The end of a long text is the policy's latest writing, so the beginning is what goes.
            found.append(codec.surround(ids, self.max_tokens, ends=True) or [self._pad_id])
        return found

    def _told(self, prompt: str | Messages, completion: str) -> tuple[str, str, str]:
        """What stands before the completion, the completion, and what stands after it."""
        if isinstance(prompt, str):
            return prompt, completion, ""
        template = ChatTemplate(self.tokenizer, "the reward model", "pay by a reward model that takes them")
        if template.there:
            return template.conversation(prompt, completion)
        return transcript(prompt) + "\n\nassistant: ", completion, ""

    @cached_property
    def codec(self) -> Codec:
        return Codec(self.tokenizer)

    def logits(self, ids: Sequence[Sequence[int]]) -> Float[Tensor, "N"]:
        """One score a text, with a gradient."""
        if self.model.config.model_type in _READ_ALONE and len(ids) > 1:
            return torch.cat([self.logits([row]) for row in ids])
        rows, mask = (one.to(self.model.device) for one in padded(ids, self._pad_id))
        return self._outputs(rows, mask.long()).float()

    def _outputs(self, ids: Int[Tensor, "N L"], mask: Int[Tensor, "N L"]) -> Float[Tensor, "N"]:
        """The model's one output for each row, which is padded on the right."""
        logits: Tensor = self.model(input_ids=ids, attention_mask=mask).logits
        return logits[:, 0]

    @torch.no_grad()
    def scores(self, prompts: Sequence[str | Messages], completions: Sequence[str]) -> Float[Tensor, "N"]:
        """The same without a gradient, on the CPU, in batches of like lengths."""
        ids = self.encode(prompts, completions)
        found = torch.zeros(len(ids))
        lengths = torch.tensor([len(row) for row in ids], dtype=torch.long)
        for rows in length_batches(torch.zeros_like(lengths), lengths, _MAX_BATCH_TOKENS):
            found[rows] = self.logits([ids[row] for row in rows.tolist()]).cpu()
        return found

    @property
    def _pad_id(self) -> int:
        pad_id = self.tokenizer.pad_token_id
        assert isinstance(pad_id, int), "made sure of by `load_scorer`"
        return pad_id

    def save(self, folder: Path, notes: Notes) -> None:
        """Plain `transformers` files, or `peft`'s of an adapter, and all that scoring with them needs."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        notes.save(folder)


@dataclass(frozen=True)
class PublishedScorer(Scorer):
    """A scorer with the head that its files have: of a classifier the log-odds of one label, of others an output."""

    label: int | None
    pad_id: int | None
    """The token that pads by its configuration, by which it finds where a text ends; the tokenizer may name another."""

    @property
    def classifies(self) -> bool:
        """Whether what it says of a label becomes a probability; several outputs of a regression do not."""
        return self.label is not None and self.model.config.problem_type != "regression"

    def _outputs(self, ids: Int[Tensor, "N L"], mask: Int[Tensor, "N L"]) -> Float[Tensor, "N"]:
        config, pad_id = self.model.config.get_text_config(), self.pad_id
        if pad_id is None or pad_id < 0:  # early Llamas have -1
            # Alone, such a model reads the last token of a text whatever it is; so pad with one that no text ends in.
            last = ids[torch.arange(len(ids)), mask.sum(dim=1) - 1].tolist()
            pad_id = next(token for token in range(len(ids) + 1) if token not in last)
        config.pad_token_id = pad_id
        try:
            output = self.model(input_ids=ids.where(mask.bool(), pad_id), attention_mask=mask)
        finally:
            config.pad_token_id = self.pad_id
        logits = output.logits.float()
        chosen: Tensor = logits[:, self.label or 0]
        if not self.classifies or self.model.config.problem_type == "multi_label_classification":
            return chosen
        others = torch.arange(logits.shape[1], device=logits.device) != self.label
        odds: Tensor = chosen - logits[:, others].logsumexp(dim=1)
        return odds


def load_scorer(model: str, max_tokens: int, layers: int | None = None, *, trained: bool = False) -> Scorer:
    """A model with one output from a packaged, a hub or a folder's encoder or causal model, dropout off.

    A folder's adapter is merged into its base.

    Args:
        layers: how many of its first layers to keep; default: all.
        trained: whether the folder must hold the head that scores too, and not the model alone.

    Raises:
        UserError: there is no such model, it does not do for a reward model, or it is too short for ``max_tokens``
            or ``layers``.
    """
    source, base = _places(model)
    _check_config(model, _config(model, base), max_tokens, layers)
    tokenizer = load_tokenizer(model)
    kept = {"num_labels": 1} if layers is None else {"num_labels": 1, "num_hidden_layers": layers}
    # An adapter has the head beside it.
    loaded = _loaded(model, tokenizer, torch.float32, trained=trained and base == source, **kept)
    loaded.config.pad_token_id = tokenizer.pad_token_id
    return Scorer(loaded, tokenizer, max_tokens)


def load_published(model: str, label: str | int | None) -> PublishedScorer:
    """A reward model or a classifier that `transformers` trained or anybody published, with its own head.

    Args:
        label: the one of a classifier's labels that is scored, by its log-odds; None for a model with one output.

    Raises:
        UserError: there is no such model, it does not score texts, or it has no such label.
    """
    source, base = _places(model)
    config = _config(model, base)
    _check_config(model, config)
    head = "ForSequenceClassification"
    kinds = config.architectures or []
    if base == source and not any(kind.endswith(head) for kind in kinds):
        raise UserError(
            f"model '{model}' is a {', '.join(kinds) or config.model_type}, which scores no texts: give one whose name "
            f"ends in '{head}', or a folder that `rlgf reward RECIPE.yaml` wrote."
        )
    kept = {} if base == source else {"num_labels": _outputs(source, config)}
    # An adapter's files name no outputs: its base's names are theirs where there are as many, and else made up.
    config.update(kept)
    # Files list labels in any order, and YAML reads numbers.
    names: Any = config.id2label
    labels: dict[str, int] = {str(name): output for output, name in sorted((names or {}).items())}
    label = None if label is None else str(label)
    if len(labels) == 1 and label is not None:
        raise UserError(f"model '{model}' has one output and no labels: leave out 'label' (it is '{label}').")
    if len(labels) > 1 and label not in labels:
        raise UserError(
            f"model '{model}' is a classifier: set 'label' (it is {label!r}) to one of {', '.join(labels)}."
        )
    tokenizer = load_tokenizer(model)
    dtype = torch.float32 if device().type == "cpu" else "auto"
    loaded = _loaded(model, tokenizer, dtype, trained=True, **kept)
    return PublishedScorer(
        loaded,
        tokenizer,
        context_of(config) or tokenizer.model_max_length,
        None if label is None else labels[label],
        getattr(config.get_text_config(), "pad_token_id", None),
    )


def _outputs(adapter: str, config: PreTrainedConfig) -> int:
    """How many outputs the head beside an adapter has, for a base of that configuration."""
    single = copy.deepcopy(config)
    single.num_labels = 1
    with loading(f"model '{adapter}'", adapter, _REMEDY), torch.device("meta"):
        needed = AutoModelForSequenceClassification.from_config(single).state_dict()
    rows = {name: len(weight) for name, weight in needed.items() if weight.dim()}
    held = lora.whole_weights(adapter)
    return next((count for name, count in held.items() if rows.get(name) == 1 != count), 1)


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer of what `load_scorer` loads, with a token that pads.

    Raises:
        UserError: there is no such model, or its tokenizer has no such token.
    """
    source = _source(model)
    require_tokenizer(model, source)
    with loading(f"model '{model}'", source, _REMEDY):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UserError(
                f"model '{model}': its tokenizer has neither a token that pads (pad_token) nor one that ends a text "
                "(eos_token): set one of them in the tokenizer and save it."
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _source(model: str) -> str:
    return str(resolve(model, _PACKAGED, "model")()) if model in _PACKAGED else model


def _places(model: str) -> tuple[str, str]:
    """Where a model is, and where its base is if it is an adapter."""
    source = _source(model)
    return source, lora.adapter_base(source, None) or source


def _loaded(
    model: str, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype | str, *, trained: bool, **kept: int
) -> Any:
    """A model that scores texts, on the device and without dropout; an adapter is merged into its base."""
    source, base = _places(model)
    with loading(f"model '{model}'", base, _REMEDY):
        loaded, report = AutoModelForSequenceClassification.from_pretrained(
            base, dtype=dtype, **weights.REPORTED, **kept
        )
    later = lora.whole_weights(source) if base != source else {}
    weights.check_scorer(model, loaded, report, trained=trained, later=later)
    if base != source:
        loaded = lora.merged(loaded, source, None)
    check_vocabulary(f"model '{model}'", loaded, tokenizer)
    require_finite_weights(f"model '{model}'", loaded.named_parameters())
    return loaded.eval().to(device())


def _config(model: str, base: str) -> PreTrainedConfig:
    with loading(f"model '{model}'", base, _REMEDY):
        config: PreTrainedConfig = AutoConfig.from_pretrained(base)
    return config


def _check_config(
    model: str, config: PreTrainedConfig, max_tokens: int | None = None, layers: int | None = None
) -> None:
    """Checks that need the configuration alone, before the weights load."""
    if config.is_encoder_decoder:
        raise UserError(
            f"model '{model}' has an encoder and a decoder ('{config.model_type}'), and a reward model is made from an "
            "encoder or a causal model: choose one of these."
        )
    if config.model_type in _NO_EMBEDDINGS:
        raise UserError(
            f"model '{model}' ('{config.model_type}') has no table of token embeddings, and a reward model is made from one "
            "that has: choose another."
        )
    own = getattr(config.get_text_config(), "num_hidden_layers", None)
    for name, asked, most in (("max_tokens", max_tokens, context_of(config)), ("layers", layers, own)):
        if asked is not None and most is not None and asked > most:
            raise UserError(
                f"'{name}' {asked} is more than the model '{model}' holds: set it to {most} or less."
            )


_REMEDY = f"give a folder that `save_pretrained` wrote, a hub name, or one of: {', '.join(_PACKAGED)}"
