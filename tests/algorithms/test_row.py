"""What the fields of a row say by themselves."""

from __future__ import annotations

import pytest

from rlgf.algorithms import KLConfig
from rlgf.algorithms.base_rows import PPO
from rlgf.algorithms.row import Row


def test_a_loss_that_reads_the_reference_has_one() -> None:
    row = Row.model_validate(
        {"name": "own", "terms": {"kl": {"loss": "kl"}, "nll": {"loss": "nll"}}, "advantage": None}
    )
    assert row.needs_reference


@pytest.mark.parametrize("gae_lambda", ["adaptively", 1.5, -0.1, float("nan"), [0.5]])
def test_a_lambda_is_a_number_up_to_1_or_adaptive(gae_lambda: object) -> None:
    assert PPO.changed(gae_lambda="adaptive").gae_lambda == "adaptive"
    with pytest.raises(ValueError, match="it must be a number from 0 to 1, or 'adaptive'"):
        PPO.changed(gae_lambda=gae_lambda)


def test_a_row_says_what_it_reads_also_where_its_fields_do_not_fit_together() -> None:
    fields = {"name": "odd", "terms": [{"loss": "policy_gradient"}, {"loss": "nll"}, {"loss": "nll"}]}
    assert list(Row(**fields).terms) == ["policy_gradient", "nll", "nll_3"]
    assert "advantages" in Row(**fields).reads


def test_kl_controller_follows_its_closed_form() -> None:
    config, coefficient = KLConfig(coefficient=0.1, target=0.02, horizon=10), 0.1
    for kl in (0.02, 0.022, 0.019, 0.5, 0.0):
        coefficient = config.next(coefficient, kl)
    assert coefficient == pytest.approx(0.1 * 1.0 * 1.01 * 0.995 * 1.02 * 0.98)


def test_a_horizon_is_a_number_of_updates_and_no_share_of_the_run() -> None:
    """With 0.1 a coefficient below its target would become its own negative, and pay for leaving the start."""
    with pytest.raises(ValueError, match=r"horizon\n.*greater than or equal to 1"):
        KLConfig(target=0.02, horizon=0.1)
    assert KLConfig(coefficient=0.1, target=0.02, horizon=1).next(0.1, 0.0) == pytest.approx(0.08)


def test_without_a_target_the_coefficient_stays() -> None:
    assert KLConfig(coefficient=0.1).next(0.3, 5.0) == 0.3
