"""When a row may read start values."""

from __future__ import annotations

from typing import Any

import pytest

from rlgf.algorithms import algorithm_from


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start_value": None}, "set both"),
        ({"base": "grpo", "start_value": {}}, "set both"),
        ({"script": {"rollin": "guide"}, "help": {"probability": 0.5}}, "that of the bare prompt"),
        ({"whiten": True}, "leave 'learned_reward' and 'whiten' out"),
        ({"learned_reward": True}, "leave 'learned_reward' and 'whiten' out"),
        ({"start_value": {"texts": 0}}, "greater than or equal to 1"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        algorithm_from({"base": "a-star-po", **changes})
