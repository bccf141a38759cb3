"""What an estimator says of episodes: looked at, and in dialogues as if the environment's tokens were not there, which
are part of a state and no step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from rlgf.algorithms import Estimates, Estimator, Pairs, Signals
from rlgf.errors import UserError


def estimated(estimator: Estimator, signals: Signals) -> Estimates | Pairs:
    """What an estimator says of the authors' tokens, as if those of an environment between them were not there.

    From the last token of a turn the next state is the one after the reply, so ``V_t+1`` of generalized advantage
    estimation is the value before the next turn's first token. Tokens of the environment get 0.

    Args:
        signals: ``mask`` holds the tokens that authors chose.

    Raises:
        UserError: it is one of the user's own, and returned something else.
    """
    first = signals.mask.long().argsort(dim=1, descending=True, stable=True)
    back = first.argsort(dim=1)
    if bool((first[:, 1:] > first[:, :-1]).all()):
        return _checked(estimator, signals)

    by_token: dict[str, Any] = {
        name: value.gather(1, first)
        for name, value in vars(signals).items()
        if isinstance(value, Tensor) and value.dim() > 1
    }
    found = _checked(estimator, replace(signals, **by_token))
    if isinstance(found, Pairs):
        return found
    returns = None if found.returns is None else (found.returns.gather(1, back) * signals.mask)
    return replace(found, advantages=found.advantages.gather(1, back) * signals.mask, returns=returns)


def _checked(estimator: Estimator, signals: Signals) -> Estimates | Pairs:
    """
    Raises:
        UserError: it says neither pairs nor a number for each token, or nothing for a critic to learn from.
    """
    found: Any = estimator.estimate(signals)
    if isinstance(found, Pairs):
        return found
    shape = signals.mask.shape
    odd = [found]
    if isinstance(found, Estimates):
        told = [found.advantages, *([] if found.returns is None else [found.returns])]
        odd = [one for one in told if not isinstance(one, Tensor) or one.shape != shape]
    if odd:
        shown = f"a tensor of {tuple(odd[0].shape)}" if isinstance(odd[0], Tensor) else f"{odd[0]!r:.60}"
        raise UserError(
            f"the estimator of 'algorithm.advantage' returned {shown}: it must return Pairs, or Estimates(advantages, "
            f"returns), each a tensor of {tuple(shape)}, a number for each token."
        )
    estimates: Estimates = found
    if estimates.returns is None and estimator.returns and signals.values is not None:
        raise UserError(
            "the estimator of 'algorithm.advantage' returned no returns, and the row has a critic to learn them: it must "
            "return Estimates(advantages, returns), or 'algorithm.terms' have no value term."
        )
    returns = None if estimates.returns is None else estimates.returns.detach().float()
    return replace(estimates, advantages=estimates.advantages.detach().float(), returns=returns)
