"""The rewards that a trained reward model pays: a whole model, or an adapter on the policy's own base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlgf.errors import UserError
from rlgf.models import lora
from rlgf.models.abilities import mixed_precision
from rlgf.models.encoder_decoder import is_encoder_decoder
from rlgf.models.forward import trunk_of
from rlgf.models.language_model import LanguageModel
from rlgf.models.lora import Adapters
from rlgf.reward_models.notes import Kind, Notes, holds_reward_model, read_notes
from rlgf.reward_models.scorer import Scorer, load_published, load_scorer, load_tokenizer
from rlgf.rewards.base import completion_text, told
from rlgf.rollout.config import RolloutConfig
from rlgf.types import Message, Messages


class ModelReward:
    """What a trained reward model says of a text.

    A model with one output reads prompt and completion and pays its score, one that `rlgf reward` trained less its
    mean over the texts that it was trained on; one output of a regression is paid likewise. A classifier reads the
    completion alone and pays the probability of its label.
    """

    def __init__(self, model: str, label: str | int | None = None) -> None:
        """
        Args:
            model: a folder that `rlgf reward RECIPE` wrote, or the folder or hub name of another
                ``AutoModelForSequenceClassification``.
            label: what is paid for, where that has several.

        Raises:
            UserError: it is no such model, or it has no such label.
        """
        if holds_reward_model(model):
            self.notes = read_notes(model, "model")
            if label is not None:
                raise UserError(
                    f"reward 'model', option 'label' (it is '{label}'): {model} holds a model that `rlgf reward` trained, "
                    "which has one output: leave it out."
                )
            self._scorer: Scorer = load_scorer(model, self.notes.max_tokens, self.notes.layers, trained=True)
        else:
            self._scorer = published = load_published(model, label)
            kind: Kind = "classifier" if published.classifies else "preference"
            self.notes = Notes(kind=kind, max_tokens=self._scorer.max_tokens)

    def __call__(self, prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
        """One number per completion; see `Reward`."""
        return _paid(self._scorer, self.notes, prompts, completions)

    def save(self, folder: Path) -> None:
        """Write it whole, an adapter merged into its base."""
        folder.mkdir(parents=True, exist_ok=True)
        self._scorer.save(folder, self.notes.model_copy(update={"layers": None}))


class AdapterReward:
    """The reward of a model that is an adapter on the policy's own base, over the base that is loaded already.

    Its values are those of `ModelReward` of the same folder; what it adds to memory is the adapter and a head.
    """

    def __init__(self, folder: str) -> None:
        """
        Args:
            folder: what `rlgf reward RECIPE` wrote, with the policy's base as its ``model`` and with ``lora``.

        Raises:
            UserError: it is not such a folder.
        """
        self.notes = read_notes(folder, "adapter")
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
            # Its own, since the policy's may have no token that pads, or another chat template.
            load_tokenizer(str(self._folder)),
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
        with mixed_precision(ids.device), self.adapters.running(self.name):
            output = trunk_of(self.model)(input_ids=ids, attention_mask=mask, use_cache=False)
        # Where the classifiers of transformers read: a text may end in the token that pads.
        places = torch.arange(ids.shape[1], device=ids.device) * (ids != self._pad_id)
        last: Tensor = output.last_hidden_state[torch.arange(len(ids)), places.argmax(dim=1)]
        return last.to(self.head.dtype) @ self.head[0]


def _paid(scorer: Scorer, notes: Notes, prompts: Sequence[Any], completions: Sequence[Any]) -> list[float]:
    """What a preference model or a classifier pays; see `ModelReward`."""
    if notes.kind == "classifier":
        texts = list(map(completion_text, completions))
        probabilities: list[float] = scorer.scores([""] * len(texts), texts).sigmoid().tolist()
        return probabilities
    rows = [_parts(prompt, text) for prompt, text in zip(prompts, completions, strict=True)]
    scores: list[float] = (
        scorer.scores([asked for asked, _ in rows], [text for _, text in rows]) - notes.centre
    ).tolist()
    return scores


def _parts(prompt: Any, completion: Any) -> tuple[str | Messages, str]:
    """The question, and the last turn of the answer; the turns of a dialogue before it, and the replies, are asked too."""
    asked = told(prompt)
    if isinstance(asked, str) or isinstance(completion, str):
        return asked, completion_text(completion)
    *before, last = (Message(one["role"], one["content"]) for one in completion)
    return (*asked, *before), last.content
