"""How much of a run is over, and how long it will have been."""

from __future__ import annotations

from rlgf.training import TrainingConfig


def test_the_share_is_that_of_whatever_is_nearest_its_end() -> None:
    plain = TrainingConfig(updates=10)
    assert [plain.share(update, 10**9, 10**9) for update in (0, 3, 10)] == [0, 0.3, 1]
    bound = TrainingConfig(updates=10, policy_tokens=400, guide_tokens=100)
    assert bound.share(1, 80, 10) == 0.2
    assert bound.share(1, 80, 50) == 0.5
    assert bound.share(1, 500, 50) == 1
    assert not plain.counts_tokens
    assert bound.counts_tokens
    assert plain.expected_updates(3, 80, 10) == 10
    assert bound.expected_updates(2, 80, 10) == 10
    assert bound.expected_updates(4, 320, 10) == 5
    assert bound.expected_updates(6, 430, 10) == 6
    assert bound.expected_updates(0, 0, 0) == 10
