"""The coefficient of the KL penalty against its closed form."""

from __future__ import annotations

import pytest

from rlgf.algorithms import KLConfig


def test_kl_controller_follows_its_closed_form() -> None:
    config, coefficient = KLConfig(coefficient=0.1, target=0.02, horizon=10), 0.1
    for kl in (0.02, 0.022, 0.019, 0.5, 0.0):
        coefficient = config.next(coefficient, kl)
    assert coefficient == pytest.approx(0.1 * 1.0 * 1.01 * 0.995 * 1.02 * 0.98)


def test_without_a_target_the_coefficient_stays() -> None:
    assert KLConfig(coefficient=0.1).next(0.3, 5.0) == 0.3
