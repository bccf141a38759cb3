"""What is said of the guide: how often it is asked, and whether its budget suffices."""

from __future__ import annotations

from typing import Any

import pytest
from told_runs import shown

ON_A_SERVER = {"url": "http://127.0.0.1:9/v1", "model": "letters"}


def said(guide: dict[str, Any] | None = None, *sources: Any) -> str:
    """Without the ends of lines."""
    section = [{"guide": None}, {"guide": guide}] if guide else []
    return " ".join(shown(*section, "algorithm=ppo++", "algorithm.help.probability=1", *sources).split())


@pytest.mark.parametrize(
    ("budget", "sentence"),
    [
        ({}, "There is no budget ('guide.budget')."),
        ({"calls": 1000}, "The budget (1,000 calls) suffices."),
        ({"calls": 50}, "The budget (50 calls) may not suffice: where it is spent the run stops with a checkpoint."),
        (
            {"tokens": 9, "then": "unguided"},
            "The budget (9 tokens) may not suffice: where it is spent the run trains on without the guide.",
        ),
    ],
)  # fmt: skip
def test_a_budget_is_held_against_all_that_may_be_asked(budget: dict[str, Any], sentence: str) -> None:
    assert sentence in said({**ON_A_SERVER, "budget": budget})


def test_of_several_servers_each_has_its_budget_named() -> None:
    two = {"guides": {"small": ON_A_SERVER, "smaller": ON_A_SERVER}}
    text = said({"guides": {"big": ON_A_SERVER, "two": two}})
    assert "There is no budget of big ('guide.guides.big.budget')." in text
    assert "There is no budget of two/small ('guide.guides.two.guides.small.budget')." in text


def test_requests_are_counted_for_an_update_and_for_the_run() -> None:
    text = said()
    assert "toys:FavouringGuide per update 16 60 run 80 " in text
    assert "budget" not in text, "it is no server"


def test_a_price_makes_a_column() -> None:
    assert " cost " not in said(ON_A_SERVER)
    assert " cost " in said({**ON_A_SERVER, "prices": {"prompt": 1.0}})


def test_texts_to_choose_among_and_probabilities_are_told() -> None:
    assert "It writes 3 texts for each" in said(None, "algorithm=luffy", "guide.candidates=3")
