"""Selectors that cannot be called, and terms that have no tokens to select from."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from torch import Tensor

from rlgf.algorithms import algorithm_from
from rlgf.errors import UserError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"select": "entropie"}, "selector 'entropie' is not known"),
        ({"select": {"name": "top_entropy", "options": {"share": 0}}}, "greater than 0"),
        (
            {"select": {"name": "top_entropy", "options": {"part": 0.2}}},
            r"no option 'part' \(it has 'share'\)",
        ),
    ],
)
def test_a_selector_that_cannot_be_called_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises((ValidationError, UserError), match=message):
        algorithm_from({"base": "grpo", "terms": {"policy": changes}})


def test_what_does_not_learn_from_tokens_has_no_selector() -> None:
    for base, term in (("ppo", "value"), ("dpo", "policy")):
        with pytest.raises(ValidationError, match=f"leave 'select' out of the term '{term}'"):
            algorithm_from({"base": base, "terms": {term: {"select": "uncertainty"}}})
    with pytest.raises(
        ValidationError, match="'advantage_regression' is one of whole texts: leave 'select' out"
    ):
        algorithm_from({"base": "a-star-po", "terms": {"policy": {"select": "uncertainty"}}})
    with pytest.raises(ValidationError, match="reads old_logprobs, and the references have none"):
        algorithm_from(
            {
                "base": "grpo",
                "terms": {
                    "references": {
                        "loss": "nll",
                        "on": "references",
                        "select": {"name": f"{__name__}:by_ratio"},
                    }
                },
            }
        )


def by_ratio(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    return (logprobs - old_logprobs).exp()
