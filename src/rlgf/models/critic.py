"""Value functions V(s): a network of their own, or a head on the policy's trunk."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from rlgf.models.scoring import Tokens, base_hidden


class Critic(nn.Module):
    """Values the state before each response token."""

    reads_policy_hidden: bool
    """Whether it needs the policy's last hidden states, from the same forward pass."""

    def forward(self, tokens: Tokens, hidden: Float[Tensor, "B T D"] | None) -> Float[Tensor, "B T"]:
        raise NotImplementedError


def _zero_head(width: int) -> nn.Linear:
    """A linear map to one number that starts at 0 everywhere: no value before there is evidence."""
    head = nn.Linear(width, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _value(head: nn.Linear, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B T"]:
    values: Tensor = head(hidden.to(head.weight.dtype)).squeeze(-1)
    return values


class SeparateCritic(Critic):
    """A network of its own that starts as a copy of the policy's trunk."""

    reads_policy_hidden = False

    def __init__(self, policy: PreTrainedModel) -> None:
        super().__init__()
        trunk = AutoModel.from_config(policy.config)
        trunk.load_state_dict(policy.base_model.state_dict())
        self.trunk = trunk.eval()
        self.head = _zero_head(policy.config.get_text_config().hidden_size)

    def forward(self, tokens: Tokens, hidden: Float[Tensor, "B T D"] | None) -> Float[Tensor, "B T"]:
        return _value(self.head, base_hidden(self.trunk, tokens))


class HeadCritic(Critic):
    """A linear head on the policy's last hidden states: cheaper, and the trunk learns from both."""

    reads_policy_hidden = True

    def __init__(self, policy: PreTrainedModel) -> None:
        super().__init__()
        self.head = _zero_head(policy.config.get_text_config().hidden_size)

    def forward(self, tokens: Tokens, hidden: Float[Tensor, "B T D"] | None) -> Float[Tensor, "B T"]:
        assert hidden is not None, "the trainer asks the policy for hidden states"
        return _value(self.head, hidden)


CRITICS = {
    "separate": SeparateCritic,
    "head": HeadCritic,
}


def build_critic(kind: str, policy: PreTrainedModel) -> Critic:
    """A critic of the given kind on the policy's device."""
    return CRITICS[kind](policy).to(policy.device, torch.float32)
