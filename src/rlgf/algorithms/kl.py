"""The coefficient of the KL penalty: fixed, or steered towards a target."""

from __future__ import annotations

from pydantic import Field

from rlgf.strict import Strict


class KLConfig(Strict):
    """The penalty for leaving the reference.

    Either ``coefficient * (log pi - log reference)`` comes off the reward of each of the policy's tokens, or
    ``coefficient * KL(pi || reference)`` is a term of its loss, see `Algorithm.kl_penalty`.
    """

    coefficient: float = Field(default=0.001, ge=0, allow_inf_nan=False)
    """Where an adaptive coefficient starts."""
    target: float | None = Field(default=None, gt=0)
    """KL in nats per token that the coefficient is steered to; None keeps it fixed."""
    horizon: float = Field(default=10.0, gt=0)
    """Updates over which a coefficient grows by the relative error; larger is slower."""

    def next(self, coefficient: float, kl: float) -> float:
        """The coefficient after an update whose mean KL, in nats per token, was ``kl``.

        Proportional control in log space: ``c *= 1 + clip(KL / target - 1, -0.2, 0.2) / horizon``
        (Ziegler et al., arXiv 1909.08593, section 2.2).
        """
        if self.target is None:
            return coefficient
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        return coefficient * (1 + error / self.horizon)
