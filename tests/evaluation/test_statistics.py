"""Intervals over seeds and where a curve reaches a level."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from rlgf.evaluation.statistics import first_at, interval, paired_difference

CURVE = [(0.0, 0.2), (100.0, 0.4), (200.0, 0.3), (300.0, 0.9)]


@pytest.mark.parametrize("values", [[1.0, 2.0], [0.61, 0.58, 0.66, 0.63, 0.6]])
def test_interval_is_students(values: list[float]) -> None:
    found = interval(values)
    confidence = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert found.count == len(values)
    assert found.mean == pytest.approx((confidence.high + confidence.low) / 2)
    assert found.half_width == pytest.approx((confidence.high - confidence.low) / 2)


def test_interval_of_a_table_value() -> None:
    """t(0.975, 3) is 3.182 in any table; the values 1, 2, 3, 4 have a deviation of sqrt(5 / 3)."""
    assert interval([1.0, 2.0, 3.0, 4.0]).half_width == pytest.approx(3.182 * math.sqrt(5 / 3) / 2, abs=1e-3)


def test_equal_values_have_no_width() -> None:
    assert interval([3.0, 3.0, 3.0]).half_width == 0


def test_the_width_of_one_value_is_unknown() -> None:
    found = interval([0.7])
    assert (found.mean, found.count) == (0.7, 1)
    assert math.isnan(found.half_width)


def test_no_values_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        interval([])


def test_paired_difference_pairs_equal_seeds() -> None:
    values = {3: 0.9, 0: 0.5, 1: 0.6, 7: 100.0}
    baseline = {0: 0.4, 1: 0.3, 3: 0.7, 5: -100.0}
    found = paired_difference(values, baseline)
    assert found is not None
    test = stats.ttest_rel([0.5, 0.6, 0.9], [0.4, 0.3, 0.7])
    assert (found.mean, found.count) == (pytest.approx(0.2), 3)
    assert found.half_width == pytest.approx(test.confidence_interval(0.95).high - 0.2)


def test_paired_difference_without_a_shared_seed() -> None:
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize(
    ("level", "x"),
    [
        (0.1, 0.0),
        (0.2, 0.0),
        (0.25, 25.0),
        (0.4, 100.0),
        (0.6, 250.0),
        (0.9, 300.0),
        (0.91, None),
        (math.inf, None),
    ],
    ids=["below the start", "start", "between", "peak", "after a dip", "end", "never", "no level"],
)
def test_first_at(level: float, x: float | None) -> None:
    assert first_at(CURVE, level) == (None if x is None else pytest.approx(x))


def test_an_empty_curve_reaches_nothing() -> None:
    assert first_at([], 0.0) is None
