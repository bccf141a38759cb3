"""`exgrpo` follows the exact gradient where one text of a group is an earlier policy's, see `enumerated`."""

from __future__ import annotations

import pytest
import torch
from enumerated import (
    GUIDE,
    POLICY,
    RESPONSES,
    draft,
    expected_gradient,
    gradient_of,
    likelihood,
    rollout_of,
    score,
)
from torch import Tensor

from rlgf.algorithms.catalog import EXGRPO
from rlgf.types import Author
from toys import LENGTH, state_index

EARLIER = GUIDE
SUCCESSES = [response for response in RESPONSES if score(response) >= 0.5]


def drawn(old: tuple[int, ...]) -> float:
    """How likely the earlier policy is to have written a text, of those that succeeded."""
    return float(likelihood(EARLIER, old, 0, LENGTH))


def advantage(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """In a group of two: +1, -1, or 0 for equals."""
    difference = score(one) - score(other)
    return float((difference > 1e-5) - (difference < -1e-5))


def clipped(ratio: Tensor, gain: float) -> Tensor:
    return torch.minimum(ratio * gain, ratio.clamp(0.8, 1.2) * gain)


@pytest.mark.parametrize("loss", ["shaped_ratio", "clipped_surrogate"])
def test_the_gradient_is_that_of_both_texts_each_by_the_ratio_to_its_own_writer(loss: str) -> None:
    row = EXGRPO.changed(group_size=2, terms={"rollin": {"loss": loss}})
    drafts = []
    for old in SUCCESSES:
        for new in RESPONSES:
            for _ in range(int(drawn(old) * float(likelihood(POLICY, new, 0, LENGTH)) * 16**LENGTH)):
                replayed = draft(row, old, LENGTH)
                assert set(replayed.authors) == {Author.PAST}
                replayed.logprobs = [
                    float(EARLIER[state_index(old[:t]), old[t]].log()) for t in range(LENGTH)
                ]
                drafts += [replayed, draft(row, new, 0)]
    found = expected_gradient(row, rollout_of(drafts, [i // 2 for i in range(len(drafts))]), kl=0.0)

    def surrogate(probabilities: Tensor) -> Tensor:
        total = torch.tensor(0.0)
        for old in SUCCESSES:
            for new in RESPONSES:
                chance = drawn(old) * likelihood(POLICY, new, 0, LENGTH)
                better = advantage(old, new)
                gained = -better * likelihood(probabilities, new, 0, LENGTH).log()
                for t in range(LENGTH):
                    at = state_index(old[:t]), old[t]
                    ratio = probabilities[at] / EARLIER[at]
                    gained = gained + (
                        better * ratio / (ratio + 0.1) if loss == "shaped_ratio" else clipped(ratio, better)
                    )
                total = total + chance * gained
        return total / sum(map(drawn, SUCCESSES))

    # Both texts are in one mean, of which the policy's own tokens are a half, and of a group's two texts each is one.
    torch.testing.assert_close(4 * found, gradient_of(surrogate), atol=1e-4, rtol=1e-3)
    assert found.abs().max() > 1e-2
