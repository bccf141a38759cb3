"""What a recipe says of how an update learns."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rlgf.identity import FREE
from rlgf.schedules import Schedule, constant
from rlgf.strict import Strict


class UpdateConfig(Strict):
    """How an update turns experience into weights."""

    epochs: int = Field(default=2, ge=1)
    minibatch: int = Field(default=28, ge=1)
    """Episodes per optimizer step."""
    max_micro_tokens: Annotated[int, FREE] = Field(default=16_384, ge=1)
    """Tokens, padding included, of one forward and backward pass; bounds memory, changes no result."""
    gradient_checkpointing: Annotated[bool, FREE] = False
    """Keep the inputs of the layers alone and compute the rest a second time in the backward pass, of the policy and of
    critics: less memory for about a third more time, and no other result."""
    learning_rate: Schedule = constant(1e-4)
    critic_learning_rate: Schedule | None = None
    """Default: the policy's."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_gradient_norm: float = Field(default=1.0, gt=0)
    """Of the policy and of each critic apart."""
    max_update_kl: float | None = Field(default=None, gt=0)
    """End an update early once a minibatch is this far from where the update began, in nats per token."""
