"""When a row may begin texts with the policy's own earlier successes."""

from __future__ import annotations

from typing import Any

import pytest

from rlgf.algorithms import algorithm_from


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"help": {"success": None, "gate": None}}, "'past' gives texts .* set 'help.success'"),
        ({"base": "bc", "script": {"rollout": "past"}}, "name 'past' as 'script.rollin', or"),
        ({"base": "hinted-grpo", "script": {"hint": {"author": "past"}}}, "a hint that the guide alone reads"),
        ({"base": "sdpo", "help": {"success": None}}, "'past' gives texts .* set 'help.success'"),
        ({"base": "gad", "examples": "past"}, "set 'examples' to reference or guide"),
        ({"script": {"rollin": "guide"}}, "the loss 'shaped_ratio' .* needs the probabilities of who wrote"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        algorithm_from({"base": "exgrpo", **changes})


def test_the_clipped_loss_may_take_the_place_of_the_shaped_one() -> None:
    """Since it is known how probable the tokens were when they were drawn."""
    found = algorithm_from({"base": "exgrpo", "terms": {"rollin": {"loss": "clipped_surrogate"}}})
    assert not found.needs_guide
    assert not found.foreseen
