"""What a guide is asked, what it counts, and what tells one kind of guide from another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import pytest

from rlgf import Guide, Request
from rlgf.errors import UserError
from rlgf.guides import BudgetSpentError, RecordedGuide, RemoteGuide, ReplayGuide, ScoringGuide, Usage
from rlgf.guides.base import completions_of
from rlgf.types import Completion, Sample
from toys import sentence_of


class Echo:
    def write(self, requests: Sequence[Request]) -> list[Completion]:
        return [Completion(request.written, finished=True) for request in requests]


def test_a_request_tells_the_prompt_from_what_is_written() -> None:
    request = Request("Say: It was", 4, 0, prompt_length=5)
    assert (request.prompt, request.written) == ("Say: ", "It was")
    whole = Request("Say: ", 4, 0)
    assert (whole.prompt, whole.written) == ("Say: ", "")


def test_a_request_is_the_same_whichever_row_it_is_of() -> None:
    one, other = (Request("a", 4, 0, sample=Sample("a", (text,))) for text in ("x", "y"))
    assert one == other
    assert one != Request("a", 4, 1)


def test_what_a_guide_can_do_shows_in_its_methods() -> None:
    assert isinstance(Echo(), Guide)
    assert not isinstance(Echo(), ScoringGuide)
    assert not isinstance(Echo(), RecordedGuide)
    assert not isinstance(Echo(), RemoteGuide)
    assert issubclass(ReplayGuide, RecordedGuide)
    assert not isinstance(object(), Guide)


def test_accounts_add_up_and_are_told_apart_field_by_field() -> None:
    kinds = {"int": int, "float": float}
    numbers = {field.name: kinds[str(field.type)](place) for place, field in enumerate(fields(Usage), 1)}
    one = Usage(**numbers)
    other = Usage(**{name: 10 * number for name, number in numbers.items()})
    assert vars(one + other) == {name: 11 * number for name, number in numbers.items()}
    assert other - one + one == other


def test_a_spent_budget_says_whether_to_go_on() -> None:
    assert BudgetSpentError("spent.", go_on=True).go_on
    assert isinstance(BudgetSpentError("spent.", go_on=False), UserError)


class Says:
    def __init__(self, found: Any) -> None:
        self.found = found

    def write(self, requests: Any) -> Any:
        return self.found


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "the guide 'Says' returned None for 1 requests: write(requests) must return a list"),
        ([], "the guide 'Says' returned 0 values for 1 requests"),
        (["a"], "the guide 'Says' must return an rlgf.Completion with a text for each request (one is 'a')"),
        ([Completion("\ud800", finished=True)], "wrote half of a surrogate pair"),
    ],
)
def test_what_a_guide_of_ones_own_returns_is_looked_at(found: Any, said: str) -> None:
    assert said in sentence_of(lambda: completions_of(Says(found), [Request("a", 1, seed=0)]))
