"""Teacher-forced passes over prompts with responses: log-probabilities, entropies, hidden states."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from rlgf.types import Rollout


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

    @staticmethod
    def of(rollout: Rollout) -> Tokens:
        prompt = max(int(rollout.prompt_mask.sum(dim=1).max()), 1)
        response = max(int(rollout.lengths.max()), 1)
        return Tokens(
            rollout.prompt_ids[:, -prompt:],
            rollout.prompt_mask[:, -prompt:],
            rollout.response_ids[:, :response],
            rollout.response_mask[:, :response],
        )

    def cut(self, length: int) -> Tokens:
        """The same without response columns from ``length`` on."""
        return Tokens(
            self.prompt_ids, self.prompt_mask, self.response_ids[:, :length], self.response_mask[:, :length]
        )

    def to(self, device: torch.device) -> Tokens:
        return Tokens(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def model_inputs(self) -> dict[str, Tensor]:
        """Arguments of a causal model's forward pass over all but the last response token.

        The last token's own output is never read: the state before it is one position earlier.
        """
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
    with mixed_precision(model.device):
        output = model(
            **tokens.model_inputs(), use_cache=False, logits_to_keep=length, output_hidden_states=hidden
        )
    return output.logits, output.hidden_states[-1][:, -length:] if hidden else None


def base_hidden(trunk: torch.nn.Module, tokens: Tokens) -> Float[Tensor, "B T D"]:
    """The last hidden states of a model without its head (`base_model`), at response positions."""
    with mixed_precision(tokens.prompt_ids.device):
        output = trunk(**tokens.model_inputs(), use_cache=False)
    states: Tensor = output.last_hidden_state[:, -tokens.response_ids.shape[1] :]
    return states
