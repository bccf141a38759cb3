"""Teacher-forced passes over prompts with responses: log-probabilities, entropies, hidden states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from rlgf.kept import KeptTokens, kept_mask
from rlgf.models.encoder_decoder import decoder_start, encode, encoded_inputs, is_encoder_decoder
from rlgf.types import Author, Rollout

_OF_RESPONSE = ("response_ids", "response_mask", "given")


def mixed_precision(device: torch.device) -> torch.autocast:
    """On a GPU matrix products run in bfloat16, over weights that stay as they are; elsewhere nothing changes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


@dataclass(frozen=True)
class Tokens:
    """What a scoring pass reads: prompts padded on the left, responses on the right.

    Columns that are padding in every row are cut off.
    """

    prompt_ids: Int[Tensor, "B P"]
    prompt_mask: Bool[Tensor, "B P"]
    response_ids: Int[Tensor, "B T"]
    response_mask: Bool[Tensor, "B T"]
    kept: tuple[KeptTokens | None, ...] = ()
    """What each token was drawn from, see `Rollout`; empty where nothing was cut off."""
    given: Bool[Tensor, "B T"] | None = None
    """Which response tokens the policy did not draw itself; None where that makes no difference."""

    @staticmethod
    def of(rollout: Rollout) -> Tokens:
        prompt = max(int(rollout.prompt_mask.sum(dim=1).max()), 1)
        response = max(int(rollout.lengths.max()), 1)
        return Tokens(
            rollout.prompt_ids[:, -prompt:],
            rollout.prompt_mask[:, -prompt:],
            rollout.response_ids[:, :response],
            rollout.response_mask[:, :response],
            rollout.kept,
            ~rollout.written_by(Author.POLICY)[:, :response],
        )

    def cut(self, length: int) -> Tokens:
        """The same without response columns from ``length`` on."""
        return self._with(_OF_RESPONSE, lambda tensor: tensor[:, :length])

    def to(self, device: torch.device) -> Tokens:
        return self._with(("prompt_ids", "prompt_mask", *_OF_RESPONSE), lambda tensor: tensor.to(device))

    def _with(self, names: Sequence[str], change: Callable[[Tensor], Tensor]) -> Tokens:
        there = {name: getattr(self, name) for name in names}
        changed: dict[str, Any] = {name: change(value) for name, value in there.items() if value is not None}
        return replace(self, **changed)

    def kept_mask(self, width: int) -> Bool[Tensor, "B T V"] | None:
        """What each response token was drawn from, over ``width`` logits; None where nothing was cut off."""
        return kept_mask(self.kept, self.response_ids.shape[1], width, self.response_ids.device)

    def model_inputs(self, model: PreTrainedModel, start: Sequence[int] = ()) -> dict[str, Any]:
        """Arguments of a model's forward pass over all but the last response token.

        The last token's own output is never read: the state before it is one position earlier. An
        encoder-decoder model's encoder runs here, once a prompt.

        Args:
            start: what stands before every response of a decoder, see `decoder_start`.
        """
        if is_encoder_decoder(model):
            prompts = [ids[mask] for ids, mask in zip(self.prompt_ids, self.prompt_mask, strict=True)]
            first = self.response_ids.new_tensor(start).expand(len(prompts), -1)
            # A decoder sees nothing behind a token, so padding on the right needs no mask.
            return {
                **encoded_inputs(*encode(model, prompts)),
                "decoder_input_ids": torch.cat([first, self.response_ids[:, :-1]], dim=1),
            }
        ids = torch.cat([self.prompt_ids, self.response_ids[:, :-1]], dim=1)
        mask = torch.cat([self.prompt_mask, self.response_mask[:, :-1]], dim=1)
        positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
        return {
            "input_ids": ids,
            "attention_mask": mask.long(),
            "position_ids": positions,
        }


def response_outputs(
    model: PreTrainedModel, tokens: Tokens, *, hidden: bool = False
) -> tuple[Float[Tensor, "B T V"], Float[Tensor, "B T D"] | None]:
    """Logits at response positions alone, and the last hidden states there where asked for.

    Entry ``[:, t]`` belongs to the state before response token t.
    """
    length = tokens.response_ids.shape[1]
    # A decoder's few columns before the response cost nothing; a causal model's are the whole prompt.
    keep = {} if is_encoder_decoder(model) else {"logits_to_keep": length}
    with mixed_precision(model.device):
        output = model(
            **tokens.model_inputs(model, decoder_start(model)),
            **keep,
            use_cache=False,
            output_hidden_states=hidden,
        )
    return output.logits[:, -length:], _last_states(output)[:, -length:] if hidden else None


def trunk_of(model: PreTrainedModel) -> PreTrainedModel:
    """A model without its head; one that has no such part is its own."""
    trunk = model.base_model
    assert isinstance(trunk, PreTrainedModel)
    return trunk


def base_hidden(trunk: PreTrainedModel, tokens: Tokens, start: Sequence[int]) -> Float[Tensor, "B T D"]:
    """The last hidden states of a trunk at response positions; ``start`` as `decoder_start` of its model."""
    # Models without a base of their own, such as T5's, run with their head and keep every layer's states.
    headless = trunk.get_output_embeddings() is None
    with mixed_precision(trunk.device):
        output = trunk(
            **tokens.model_inputs(trunk, start), use_cache=False, output_hidden_states=not headless
        )
    states: Tensor = output.last_hidden_state if headless else _last_states(output)
    return states[:, -tokens.response_ids.shape[1] :]


def _last_states(output: Any) -> Float[Tensor, "B L D"]:
    """The last hidden states of a causal model or of a decoder."""
    states: Tensor = (getattr(output, "decoder_hidden_states", None) or output.hidden_states)[-1]
    return states
