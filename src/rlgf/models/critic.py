"""Value functions V(s): a network of their own, or a head on the policy's trunk."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlgf.models.encoder_decoder import decoder_start
from rlgf.models.forward import Tokens, base_hidden, trunk_of
from rlgf.models.lora import Adapters


class Critic(nn.Module):
    """Values the state before each response token."""

    reads_policy_hidden: bool
    """Whether it needs the policy's last hidden states, from the same forward pass."""

    def forward(self, tokens: Tokens, hidden: Float[Tensor, "B T D"] | None) -> Float[Tensor, "B T"]:
        raise NotImplementedError

    @property
    def trained(self) -> list[nn.Parameter]:
        """All but the weights that are frozen in the policy too."""
        return [weight for weight in self.parameters() if weight.requires_grad]


def _width(policy: PreTrainedModel) -> int:
    """Of the last hidden states, which some configurations call otherwise or project."""
    token = torch.zeros(1, 1, dtype=torch.long, device=policy.device)
    there = torch.ones_like(token, dtype=torch.bool)
    with torch.no_grad():
        states = base_hidden(trunk_of(policy), Tokens(token, there, token, there), decoder_start(policy))
    return int(states.shape[-1])


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
        self.trunk = copy.deepcopy(trunk_of(policy))
        self.start = decoder_start(policy)
        self.head = _zero_head(_width(policy))

    def forward(self, tokens: Tokens, hidden: Float[Tensor, "B T D"] | None) -> Float[Tensor, "B T"]:
        return _value(self.head, base_hidden(self.trunk, tokens, self.start))


class HeadCritic(Critic):
    """A linear head on the policy's last hidden states: cheaper, and the trunk learns from both."""

    reads_policy_hidden = True

    def __init__(self, policy: PreTrainedModel) -> None:
        super().__init__()
        self.head = _zero_head(_width(policy))

    def forward(self, tokens: Tokens, hidden: Float[Tensor, "B T D"] | None) -> Float[Tensor, "B T"]:
        assert hidden is not None, "the trainer asks the policy for hidden states"
        return _value(self.head, hidden)


class AdapterCritic(Critic):
    """A head on the policy's trunk run with an adapter of the critic's own: a network of its own at the
    memory of two small matrices a layer."""

    reads_policy_hidden = False

    def __init__(self, policy: PreTrainedModel, adapters: Adapters, name: str) -> None:
        super().__init__()
        adapters.add(name)
        self.adapter = nn.ParameterList(adapters.parameters(name))
        self.head = _zero_head(_width(policy))
        self.adapters, self.name = adapters, name
        # Not a module of this one: the base belongs to the policy.
        self._policy = (policy,)

    def forward(self, tokens: Tokens, hidden: Float[Tensor, "B T D"] | None) -> Float[Tensor, "B T"]:
        (policy,) = self._policy
        with self.adapters.running(self.name):
            return _value(self.head, base_hidden(trunk_of(policy), tokens, decoder_start(policy)))


def build_critic(
    kind: str, policy: PreTrainedModel, adapters: Adapters | None = None, name: str = "critic"
) -> Critic:
    """A critic of the given kind on the policy's device.

    Args:
        adapters: where the policy trains one, a separate critic is one too, of that ``name``.
    """
    if kind == "separate" and adapters is not None:
        return AdapterCritic(policy, adapters, name).to(policy.device)
    critic = SeparateCritic(policy) if kind == "separate" else HeadCritic(policy)
    return critic.to(policy.device, torch.float32)
