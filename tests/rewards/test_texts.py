"""Rewards that count in the texts themselves."""

from __future__ import annotations

from typing import Any

import pytest
from trl_rewards import LENGTHS, said

from rlgf.errors import UserError
from rlgf.rewards import RewardInput, build_reward, checked_rewards, score


def test_length_counts_the_words_over_the_target() -> None:
    reward = build_reward("length", {"target": 2})
    assert reward([""] * 4, ["", "one two", "one  two\nthree", "a b c d e"]) == [0, 0, -1, -3]


def test_a_metric_pays_what_it_says_of_each_text() -> None:
    reward = build_reward("metric", {"metric": "words"})
    assert score(
        reward, RewardInput(["", ""], ["one two", "one"], {"label": [1, 2]}, [(), ()])
    ).total.tolist() == [2, 1]


def several(
    prompts: list[str], completions: list[str], references: list[Any], **columns: list[Any]
) -> dict[str, Any]:
    return {
        "first": [float(len(texts)) for texts in references],
        "second": [float(value) for value in columns["n"]],
        "total": 3.0,
    }


@pytest.mark.parametrize(("key", "expected"), [("first", [1, 0]), ("second", [5, 6])])
def test_a_metric_gets_references_and_columns(key: str, expected: list[float]) -> None:
    reward = build_reward("metric", {"metric": f"{__name__}:several", "key": key})
    assert (
        score(reward, RewardInput(["", ""], ["", ""], {"n": [5, 6]}, [("r",), ()])).total.tolist() == expected
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "wrods"}, "metric 'wrods' is not known: did you mean 'words'?"),
        (
            {"metric": "distinct"},
            "'distinct' cannot be a reward: it has totals alone (distinct_1, distinct_2, distinct_3)",
        ),
        ({"metric": f"{__name__}:several"}, "option 'key' (it is None): .*: first, second"),
        (
            {"metric": f"{__name__}:several", "key": "total"},
            "option 'key' (it is 'total'): .*: first, second",
        ),
        ({}, "needs the option 'metric'"),
    ],
)
def test_a_metric_that_cannot_be_paid_is_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        score(build_reward("metric", options), RewardInput([""], [""], {"n": [1]}, [()]))
    start, _, end = message.partition(".*")
    assert start in str(caught.value)
    assert end in str(caught.value)
    assert "\n" not in str(caught.value)


def as_a_metric(completions):
    return [len(text) for text in completions]


def test_a_metric_of_that_kind_is_a_reward() -> None:
    assert said(build_reward("metric", {"metric": f"{__name__}:as_a_metric"})) == LENGTHS


def where_there_is_text(completions):
    return [float(len(text)) if text else None for text in completions]


def test_a_text_that_a_metric_does_not_apply_to_is_not_paid() -> None:
    reward = build_reward("metric", {"metric": f"{__name__}:where_there_is_text"})
    total = checked_rewards(reward, RewardInput(["", ""], ["", "one"]))
    assert total.isnan().tolist() == [True, False]
