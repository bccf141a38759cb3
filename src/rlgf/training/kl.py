"""The coefficient of the KL penalty: fixed, or steered towards a target."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class KLConfig(BaseModel):
    """The penalty for leaving the reference, in each algorithm that has a reward.

    Either ``coefficient * (log pi - log reference)`` comes off the reward of each of the policy's tokens, or
    ``coefficient * KL(pi || reference)`` is a term of its loss, see `Algorithm.kl_penalty`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    coefficient: float = Field(default=0.001, ge=0, allow_inf_nan=False)
    """Where an adaptive coefficient starts."""
    target: float | None = Field(default=None, gt=0)
    """KL in nats a token that the coefficient is steered to; None keeps it fixed."""
    horizon: float = Field(default=10.0, gt=0)
    """Updates over which a coefficient grows by the relative error; larger is slower."""


class KLController:
    """Proportional control in log space: ``c *= 1 + clip(KL / target - 1, -0.2, 0.2) / horizon``.

    (Ziegler et al., arXiv 1909.08593, section 2.2.)
    """

    def __init__(self, config: KLConfig) -> None:
        self.config = config
        self.coefficient = config.coefficient

    def observe(self, kl: float) -> None:
        """Adjust to the mean KL of an update, in nats a token."""
        if self.config.target is not None:
            error = min(max(kl / self.config.target - 1, -0.2), 0.2)
            self.coefficient *= 1 + error / self.config.horizon
