"""Which of its tokens a loss term learns from, as a weight for each. Pure functions.

Each names as parameters what it reads, see `rlgf.algorithms.selection.SELECTABLE`, and returns a weight of 0 or more
for each token. The gradient of the term's loss at a token is multiplied by the token's weight; the number of tokens
that the term is divided by stays, so that the gradient does not depend on micro-batches. A weight must depend on its
own text alone, for the same reason.
"""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt, Le
from jaxtyping import Bool, Float
from torch import Tensor

SomeShare = Annotated[float, Gt(0), Le(1)]


def top_entropy(
    entropy: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], share: SomeShare = 0.2
) -> Float[Tensor, "B T"]:
    """1 at the share of each text's tokens at which the policy's distribution has the highest entropy, else 0.

    Of n tokens that the term reads in a text these are ``ceil(share * n)``; of equals the earlier ones (entropy-based
    clipping of Prefix-RFT, Huang et al., arXiv 2507.01679).
    """
    # A share such as 0.07 of 100 is 7, and not a rounding above it.
    wanted = (share * mask.sum(dim=1, keepdim=True) - 1e-6).ceil()
    order = entropy.masked_fill(~mask, -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)
    return ((rank < wanted) & mask).to(entropy.dtype)


def uncertainty(logprobs: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """``p (1 - p)`` with p the policy's probability of the token: most at 1/2, 0 where it is sure or has no idea.

    The token-wise weight phi of CHORD (Zhang et al., arXiv 2508.11408).
    """
    p = logprobs.exp()
    return p * (1 - p)
