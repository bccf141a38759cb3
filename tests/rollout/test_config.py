"""What a recipe says of rollouts."""

from __future__ import annotations

import pytest

from rlgf.rollout.config import RolloutConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_response_tokens": 9, "max_response_tokens": 8}, "must not exceed"),
        ({"top_k": 1}, "top_k"),
        ({"top_p": 1.5}, "top_p"),
    ],
)
def test_impossible_rollouts_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RolloutConfig.model_validate(options)
