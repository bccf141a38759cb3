"""A reward model from a folder: what `rlgf reward RECIPE` trains, and how it scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from rlgf.chat import ChatTemplate, transcript
from rlgf.errors import UserError
from rlgf.finite import require_finite_weights
from rlgf.loads import damage, loading, plain
from rlgf.models import lora
from rlgf.models.batching import length_batches
from rlgf.models.encoder_decoder import is_encoder_decoder
from rlgf.models.forward import mixed_precision, trunk_of
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import PACKAGED, check_vocabulary, device
from rlgf.models.lora import Adapters
from rlgf.models.text import Codec
from rlgf.registry import resolve
from rlgf.rewards.base import completion_text, told
from rlgf.rollout.config import RolloutConfig
from rlgf.types import Messages, pad

_PACKAGED = {"minilm": "rlgf.demo.minilm:folder", **PACKAGED}
_MAX_BATCH_TOKENS = 8192
_NOTES = "reward.json"

Kind = Literal["preference", "classifier"]


class Notes(BaseModel):
    """What stands beside a reward model's weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    max_tokens: int
    layers: int | None = None
    """How many of the base's first layers an adapter is for; default: all."""
    centre: float = 0.0
    """The mean score of the training texts, which is taken off every score."""


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
        rows = pad([torch.tensor(row) for row in ids], self._pad_id).to(self.model.device)
        mask = pad([torch.ones(len(row), dtype=torch.long) for row in ids], 0).to(self.model.device)
        with mixed_precision(self.model.device):
            return self._outputs(rows, mask).float()

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
        """Plain `transformers` files, or `peft`'s of an adapter, and what is needed to score with them."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        (folder / _NOTES).write_text(notes.model_dump_json(indent=1))


def load_scorer(model: str, max_tokens: int, layers: int | None = None, *, trained: bool = False) -> Scorer:
    """A model with one output from a packaged, a hub or a folder's encoder or causal model, dropout off.

    A folder's adapter is merged into its base.

    Args:
        layers: how many of its first layers to keep; default: all.
        trained: whether the folder must hold the head that scores too, and not the model alone.

    Raises:
        UserError: there is no such model, or it is too short for ``max_tokens``, or it has no such head.
    """
    source = str(resolve(model, _PACKAGED, "model")()) if model in _PACKAGED else model
    kept = {} if layers is None else {"num_hidden_layers": layers}
    base = lora.adapter_base(source, None) or source
    with loading(f"model '{model}'", base, _REMEDY):
        config = AutoConfig.from_pretrained(base)
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    if length is not None and max_tokens > length:
        raise UserError(
            f"'max_tokens' {max_tokens} is more than the model '{model}' holds: set it to {length} or less."
        )
    with loading(f"model '{model}'", source, _REMEDY):
        tokenizer = AutoTokenizer.from_pretrained(source)
    with loading(f"model '{model}'", base, _REMEDY):
        loaded, report = AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=1, dtype=torch.float32, output_loading_info=True, **kept
        )
    missing = sorted(report["missing_keys"])
    if base != source:
        loaded = lora.merged(loaded, source, None)
    elif trained and missing:
        raise UserError(
            f"model '{model}' has no weights for '{missing[0]}', so it was never trained as a reward model: give a "
            "folder that `rlgf reward RECIPE.yaml` wrote."
        )
    check_vocabulary(f"model '{model}'", loaded, tokenizer)
    require_finite_weights(f"model '{model}'", loaded.named_parameters())
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    loaded.config.pad_token_id = tokenizer.pad_token_id
    return Scorer(loaded.eval().to(device()), tokenizer, max_tokens)


_REMEDY = f"give a folder that `save_pretrained` wrote, a hub name, or one of: {', '.join(_PACKAGED)}"


class ModelReward:
    """What a trained reward model says of a text.

    A preference model reads prompt and completion and pays its score less its mean over the texts that
    it was trained on; a classifier reads the completion alone and pays the probability of its label.
    """

    def __init__(self, folder: str) -> None:
        """
        Args:
            folder: what `rlgf reward RECIPE` wrote.

        Raises:
            UserError: it is not such a folder.
        """
        self.notes = _read_notes(folder, "model")
        report = Path(folder) / "report.json"
        with loading(f"reward 'model', its {report}", report):
            self.report: dict[str, Any] = json.loads(report.read_text()) if report.is_file() else {}
        self._scorer = load_scorer(folder, self.notes.max_tokens, self.notes.layers, trained=True)

    def __call__(self, prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
        """One number per completion; see `Reward`."""
        return _paid(self._scorer, self.notes, prompts, completions)

    def save(self, folder: Path) -> None:
        """Write it whole, an adapter merged into its base."""
        folder.mkdir(parents=True, exist_ok=True)
        self._scorer.save(folder, self.notes.model_copy(update={"layers": None}))


class AdapterReward:
    """What a reward model says that is an adapter on the policy's own base, over the base that is loaded already.

    Its values are those of `ModelReward` of the same folder; what it adds to memory is the adapter and a head.
    """

    def __init__(self, folder: str) -> None:
        """
        Args:
            folder: what `rlgf reward RECIPE` wrote, with the policy's base as its ``model`` and with ``lora``.

        Raises:
            UserError: it is not such a folder.
        """
        self.notes = _read_notes(folder, "adapter")
        self._folder = Path(folder)
        base = lora.adapter_base(folder, None)
        if base is None or self.notes.layers is not None:
            what = (
                "a whole model" if base is None else f"an adapter on {self.notes.layers} layers of its base"
            )
            raise UserError(
                f"reward 'adapter', option 'folder' (it is '{folder}'): it holds {what}; "
                "pay by it with 'reward.name: model'."
            )
        self._base = base

    def attach(self, policy: LanguageModel, config: RolloutConfig, seed: int) -> None:
        """Inject the adapter beside the policy's; see `PolicyReadingReward`.

        Raises:
            UserError: the policy is not an adapter, or one on another base.
        """
        if policy.adapters is None or is_encoder_decoder(policy.model):
            raise UserError(
                "reward 'adapter' stands on a base that does not move, of a causal model: set 'policy.lora', "
                "or pay by it with 'reward.name: model'."
            )
        if self._base != policy.model.name_or_path:
            raise UserError(
                f"reward 'adapter': {self._folder} belongs to the base '{self._base}', and the policy's is "
                f"'{policy.model.name_or_path}': pay by it with 'reward.name: model'."
            )
        name, rest = policy.adapters.add_saved(self._folder)
        (head,) = rest.values()
        self._scorer = _SharedScorer(
            policy.model,
            policy.tokenizer,
            self.notes.max_tokens,
            policy.adapters,
            name,
            head.to(policy.model.device),
        )

    def __call__(self, prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
        """One number per completion; see `Reward`."""
        return _paid(self._scorer, self.notes, prompts, completions)


@dataclass(frozen=True)
class _SharedScorer(Scorer):
    """A scorer over the policy's base, run with an adapter and a head of its own."""

    adapters: Adapters
    name: str
    head: Float[Tensor, "1 D"]

    def _outputs(self, ids: Int[Tensor, "N L"], mask: Int[Tensor, "N L"]) -> Float[Tensor, "N"]:
        with self.adapters.running(self.name):
            output = trunk_of(self.model)(input_ids=ids, attention_mask=mask, use_cache=False)
        last: Tensor = output.last_hidden_state[torch.arange(len(ids)), mask.sum(dim=1) - 1]
        return last.to(self.head.dtype) @ self.head[0]


def holds_reward_model(folder: str) -> bool:
    return (Path(folder) / _NOTES).is_file()


def _read_notes(folder: str, reward: str) -> Notes:
    """What stands beside a reward model's weights.

    Raises:
        UserError: there is nothing; names the reward that was to be built.
    """
    place = f"reward '{reward}', option 'folder' (it is '{folder}')"
    notes = Path(folder) / _NOTES
    if not notes.is_file():
        raise UserError(
            f"{place}: it holds no reward model; give a folder that `rlgf reward RECIPE.yaml` wrote."
        )
    try:
        return Notes.model_validate_json(notes.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{place} holds a damaged reward model: {damage(notes.parent) or f'{notes} ({plain(error)})'}."
        ) from error


def _paid(scorer: Scorer, notes: Notes, prompts: Sequence[Any], completions: Sequence[Any]) -> list[float]:
    """What a preference model or a classifier pays; see `ModelReward`."""
    prompts, completions = list(map(told, prompts)), list(map(completion_text, completions))
    if notes.kind == "classifier":
        probabilities: list[float] = scorer.scores([""] * len(completions), completions).sigmoid().tolist()
        return probabilities
    scores: list[float] = (scorer.scores(prompts, completions) - notes.centre).tolist()
    return scores
