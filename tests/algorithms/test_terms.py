"""Terms in every form that a recipe gives them, and losses of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from torch import Tensor

from rlgf.algorithms import Algorithm, algorithm_from
from rlgf.errors import UserError
from rlgf.schedules import constant


def test_terms_can_be_a_list() -> None:
    terms: list[dict[str, Any]] = [
        {"loss": "clipped_surrogate", "options": {"clip": 0.1}},
        {"loss": "value"},
        {"loss": "nll", "on": "references", "weight": 0.1},
        {"loss": "nll", "on": "rollout", "weight": 0.2},
    ]
    found = algorithm_from({"base": "ppo", "terms": terms})
    assert isinstance(found, Algorithm)
    assert list(found.terms) == ["clipped_surrogate", "value", "nll", "nll_4"]
    assert found.terms["value"].weight == constant(1.0), "a list is the whole of the terms"


LOSS = """
def cautious(logprobs, advantages, mask, normalizer, *, margin):
    kept = mask & (advantages > margin)
    return -(logprobs * advantages * kept).sum() / normalizer
"""


def test_your_own_loss_is_one_function_in_one_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(LOSS)
    term = {"loss": f"{tmp_path}/mine.py:cautious", "options": {"margin": 0.1}}
    found = algorithm_from({"base": "grpo", "terms": {"policy": term}})
    assert isinstance(found, Algorithm)
    assert found.terms["policy"].reads == {"logprobs", "advantages", "mask", "normalizer"}
    with pytest.raises(ValidationError, match="needs 'margin', which is neither an input"):
        algorithm_from({"base": "grpo", "terms": {"policy": {**term, "options": {}}}})


PENALTY = """
def squared(logprobs, reference_logprobs, mask, normalizer, kl_coefficient):
    return kl_coefficient * (((logprobs - reference_logprobs) ** 2) * mask).sum() / normalizer
"""


def test_your_own_kl_penalty_leaves_the_rewards(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PENALTY)
    own = {"base": "ppo", "terms": {"near": {"loss": f"{tmp_path}/mine.py:squared"}}}
    for spec, place in (("ppo", "reward"), (own, "loss")):
        found = algorithm_from(spec)
        assert isinstance(found, Algorithm)
        assert found.kl_penalty == place


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"select": "entropie"}, "selector 'entropie' is not known"),
        ({"select": {"name": "top_entropy", "options": {"share": 0}}}, "more than 0"),
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
    with pytest.raises(ValidationError, match=r"the selector .* reads old_logprobs, and the references have"):
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
