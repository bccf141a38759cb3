"""Advantages of episodes in which an environment wrote some tokens: these are part of a state, and no step."""

from __future__ import annotations

from dataclasses import replace

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

    def moved(values: Tensor | None) -> Tensor | None:
        return None if values is None else values.gather(1, first)

    found = estimator.estimate(
        replace(
            signals,
            token_rewards=signals.token_rewards.gather(1, first),
            values=moved(signals.values),
            mask=signals.mask.gather(1, first),
            logprobs=moved(signals.logprobs),
        )
    )
    if isinstance(found, Pairs):
        return found
    returns = None if found.returns is None else (found.returns.gather(1, back) * signals.mask)
    return Estimates(found.advantages.gather(1, back) * signals.mask, returns)
