"""Advantages of episodes in which an environment wrote some tokens: these are part of a state, and no step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from rlgf.algorithms import Estimates, Estimator, Pairs, Signals


def estimated(estimator: Estimator, signals: Signals) -> Estimates | Pairs:
    """What an estimator says of the authors' tokens, as if those of an environment between them were not there.

    From the last token of a turn the next state is the one after the reply, so ``V_t+1`` of generalized advantage
    estimation is the value before the next turn's first token. Tokens of the environment get 0.

    Args:
        signals: ``mask`` holds the tokens that authors chose.
    """
    first = signals.mask.long().argsort(dim=1, descending=True, stable=True)
    back = first.argsort(dim=1)
    if bool((first[:, 1:] > first[:, :-1]).all()):
        return estimator.estimate(signals)

    by_token: dict[str, Any] = {
        name: value.gather(1, first)
        for name, value in vars(signals).items()
        if isinstance(value, Tensor) and value.dim() > 1
    }
    found = estimator.estimate(replace(signals, **by_token))
    if isinstance(found, Pairs):
        return found
    returns = None if found.returns is None else (found.returns.gather(1, back) * signals.mask)
    return replace(found, advantages=found.advantages.gather(1, back) * signals.mask, returns=returns)
