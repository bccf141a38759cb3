"""Schedules against their closed forms, and how a recipe writes them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from rlgf.schedules import Schedule, Share, constant

SHARES = st.floats(0, 1)
ENDS = st.floats(0, 100)


class Recipe(BaseModel):
    coefficient: Schedule
    probability: Share = constant(0.0)


def test_linear_falls_in_a_straight_line() -> None:
    schedule = Schedule(start=0.6, end=0.0)
    assert [schedule.at(p) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.6, 0.45, 0.3, 0.0])


def test_linear_arrives_at_over_and_stays() -> None:
    schedule = Schedule(start=1.0, end=3.0, over=0.5)
    assert [schedule.at(p) for p in (0.0, 0.25, 0.5, 0.75, 1.0)] == [1.0, 2.0, 3.0, 3.0, 3.0]


@given(SHARES)
def test_cosine_is_half_a_cosine_wave(progress: float) -> None:
    schedule = Schedule(start=2.0, end=0.5, shape="cosine")
    expected = 0.5 + 1.5 * (1 + math.cos(math.pi * progress)) / 2
    assert schedule.at(progress) == pytest.approx(expected)


def test_step_jumps_when_over_is_reached() -> None:
    schedule = Schedule(start=0.0, end=1.0, shape="step", over=0.4)
    assert [schedule.at(k / 50) for k in range(50)] == [0.0] * 20 + [1.0] * 30


@pytest.mark.parametrize("updates", [5, 10, 20, 30, 35, 50, 70, 90, 100, 500, 1000, 3000])
@pytest.mark.parametrize("tenths", range(1, 10))
def test_step_jumps_at_the_exact_update(updates: int, tenths: int) -> None:
    schedule = Schedule(start=0.0, end=1.0, shape="step", over=tenths / 10)
    before = sum(schedule.at(update / updates) == 0 for update in range(updates))
    assert before == -(-updates * tenths // 10)


def test_warmup_rises_from_0_and_scales_what_follows() -> None:
    schedule = Schedule(start=1.0, end=0.0, warmup=0.2)
    assert [schedule.at(p) for p in (0.0, 0.1, 0.2, 0.5)] == pytest.approx([0.0, 0.9 * 0.5, 0.8, 0.5])


@given(ENDS, ENDS, st.sampled_from(["linear", "cosine", "step"]), st.floats(0.01, 1), SHARES, SHARES)
def test_every_shape_goes_from_start_to_end_without_turning(
    start: float, end: float, shape: Any, over: float, one: float, other: float
) -> None:
    schedule = Schedule(start=start, end=end, shape=shape, over=over)
    assert schedule.at(0.0) == start
    assert schedule.at(over) == schedule.at(1.0) == pytest.approx(end, abs=1e-9)
    earlier, later = schedule.at(min(one, other)), schedule.at(max(one, other))
    sign = 1 if end >= start else -1
    assert sign * (later - earlier) >= -1e-9


@given(ENDS, SHARES)
def test_a_constant_is_the_same_throughout(value: float, progress: float) -> None:
    assert constant(value).at(progress) == value


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (0.25, constant(0.25)),
        (3, constant(3.0)),
        ({"start": 0.5}, constant(0.5)),
        ({"start": 0.6, "end": 0, "shape": "linear"}, Schedule(start=0.6, end=0.0)),
        (
            {"start": 1, "end": 2, "shape": "cosine", "over": 0.5, "warmup": 0.1},
            Schedule(start=1.0, end=2.0, shape="cosine", over=0.5, warmup=0.1),
        ),
    ],
)
def test_a_recipe_gives_a_number_or_a_dict(written: Any, expected: Schedule) -> None:
    assert Recipe(coefficient=written).coefficient == expected


def test_a_recipe_in_json() -> None:
    assert Recipe.model_validate_json('{"coefficient": 0.5}').coefficient == constant(0.5)
    falling = Recipe.model_validate_json('{"coefficient": {"start": 1, "end": 0, "over": 0.5}}').coefficient
    assert falling.at(0.25) == 0.5


@given(ENDS, ENDS, st.sampled_from(["linear", "cosine", "step"]))
def test_a_dump_reads_back(start: float, end: float, shape: Any) -> None:
    schedule = Schedule(start=start, end=end, shape=shape, over=0.3, warmup=0.1)
    assert Schedule.model_validate(schedule.model_dump()) == schedule
    assert Schedule.model_validate_json(schedule.model_dump_json()) == schedule


@pytest.mark.parametrize(
    "written",
    [
        True,
        "fast",
        -0.5,
        math.nan,
        math.inf,
        {"end": 1},
        {"start": 1, "end": -1},
        {"start": 0, "end": 1, "shape": "square"},
        {"start": 0, "end": 1, "over": 0},
        {"start": 0, "end": 1, "over": 1.5},
        {"start": 0, "end": 1, "warmup": 1},
        {"start": 0, "end": 1, "warm_up": 0.1},
    ],
)
def test_what_is_no_schedule_is_refused(written: Any) -> None:
    with pytest.raises(ValidationError):
        Recipe(coefficient=written)


@pytest.mark.parametrize("written", [0, 1, 0.5, {"start": 1, "end": 0}])
def test_a_share_lies_between_0_and_1(written: Any) -> None:
    recipe = Recipe.model_validate({"coefficient": 3, "probability": written})
    assert recipe.probability == Schedule.model_validate(written)


@pytest.mark.parametrize("written", [1.5, {"start": 1.5, "end": 0}, {"start": 0, "end": 1.5}])
def test_a_share_above_1_is_refused(written: Any) -> None:
    with pytest.raises(ValidationError, match="between 0 and 1"):
        Recipe.model_validate({"coefficient": 3, "probability": written})


def test_a_warm_up_of_the_learning_rate_begins_above_0_and_arrives_in_time() -> None:
    """Ten updates, four of them warm-up."""
    schedule = Schedule(start=1.0, end=1.0, warmup=0.4)
    rates = [schedule.at(update / 10, step=1 / 10) for update in range(10)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1])
    short = Schedule(start=1.0, end=1.0, warmup=0.01)
    assert short.at(0.0, step=1 / 10) == 1.0
