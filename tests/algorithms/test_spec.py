"""What a row says of itself, what is left of it without its guide, and which row of a mixture runs when."""

from __future__ import annotations

import math

import pytest
import torch
from known_rows import mixture
from pydantic import ValidationError

from rlgf.algorithms import ALGORITHMS, Algorithm, Mixture, algorithm_from
from rlgf.algorithms.catalog import AGGREVATED, HINTED_GRPO, OPSD, PPO_PLUS_PLUS, QUESTA, SDFT
from rlgf.algorithms.imitation_rows import DISTILL
from rlgf.algorithms.script import Help
from rlgf.schedules import constant


@pytest.mark.parametrize("updates", [1, 5, 10, 24, 50, 333, 500])
def test_d2lols_imitates_for_exactly_the_first_two_fifths(updates: int) -> None:
    found = mixture("d2lols")
    for seed in range(3):
        names = [found.at(update, update / updates, seed).name for update in range(updates)]
        first = math.ceil(updates * 2 / 5)
        assert names == ["aggrevated"] * first + ["ppo++"] * (updates - first)


def test_lols_explores_with_probability_0_8() -> None:
    updates = 4000
    names = [mixture("lols").at(update, update / updates, 0).name for update in range(updates)]
    assert set(names) == {"aggrevated", "ppo++"}
    # Four standard deviations.
    assert abs(names.count("ppo++") / updates - 0.8) < 4 * math.sqrt(0.8 * 0.2 / updates)


def test_lols_draws_each_update_from_the_seed_and_its_number_alone() -> None:
    found = mixture("lols")
    forwards = [found.at(update, update / 200, 7) for update in range(200)]
    torch.rand(5)
    backwards = [found.at(update, update / 200, 7) for update in reversed(range(200))][::-1]
    assert backwards == forwards
    assert [found.at(update, update / 1000, 7) for update in range(200)] == forwards
    assert [found.at(update, update / 200, 8) for update in range(200)] != forwards


def test_explore_prob_follows_its_schedule() -> None:
    found = algorithm_from({"base": "lols", "explore_prob": {"start": 0, "end": 1}})
    explored = [found.at(update, update / 2000, 0).name == "ppo++" for update in range(2000)]
    quarters = [sum(explored[i : i + 500]) / 500 for i in range(0, 2000, 500)]
    assert quarters == pytest.approx([0.125, 0.375, 0.625, 0.875], abs=0.08)


def test_without_its_guide_a_row_keeps_its_other_loss() -> None:
    assert DISTILL.unguided is None
    both = PPO_PLUS_PLUS.changed(terms={"distill": {"loss": "distillation", "weight": 0.1}})
    assert both.needs_guide
    assert both.unguided == PPO_PLUS_PLUS.unguided
    assert both.unguided is not None
    assert not both.unguided.needs_guide
    assert not any(row.needs_guide for row in ALGORITHMS["ppo"].rows)


def test_without_its_guide_a_row_that_learns_from_rollins_alone_learns_nothing() -> None:
    script, help = {"rollin": "guide"}, {"probability": 1}
    found = algorithm_from(
        {"name": "mine", "script": script, "help": help, "terms": [{"loss": "nll", "on": "rollin"}]}
    )
    assert found.unguided is None


def test_without_its_guide_nobody_reads_the_hint() -> None:
    assert OPSD.unguided is None
    assert SDFT.unguided is None
    both = OPSD.changed(terms={"nll": {}})
    assert both.unguided is not None
    assert both.unguided.script.hint is None


def test_without_its_guide_a_row_has_no_hints() -> None:
    unguided = HINTED_GRPO.unguided
    assert unguided is not None
    assert HINTED_GRPO.needs_guide
    assert not unguided.needs_guide
    assert unguided.script.hint is None
    assert QUESTA.unguided == QUESTA


def test_a_mixture_has_two_rows_and_goes_on_as_its_explorer_without_a_guide() -> None:
    found = Mixture(name="own", imitate=AGGREVATED, explore=PPO_PLUS_PLUS, explore_prob=constant(1.0))
    assert found.rows == (AGGREVATED, PPO_PLUS_PLUS)
    assert found.at(0, 0.0, seed=0) is PPO_PLUS_PLUS
    assert found.unguided == PPO_PLUS_PLUS.unguided
    with pytest.raises(ValidationError, match="frozen"):
        found.name = "another"


def test_rows_of_a_mixture_have_names_of_their_own() -> None:
    other = PPO_PLUS_PLUS.changed(kl={"coefficient": 0.5})
    with pytest.raises(ValidationError, match=r"both rows of the mixture are called 'ppo\+\+'"):
        Mixture(name="own", imitate=other, explore=PPO_PLUS_PLUS, explore_prob=constant(1.0))


def test_what_does_not_fit_together_is_no_algorithm() -> None:
    with pytest.raises(ValidationError, match="reads an advantage: set 'advantage'"):
        Algorithm(name="odd", terms={"policy_gradient": {}})


def test_a_row_with_other_fields_has_them_whole_and_the_rest_as_before() -> None:
    changed = PPO_PLUS_PLUS.but(name="other", help=Help(shared=False))
    assert (changed.name, changed.help, changed.terms) == ("other", Help(shared=False), PPO_PLUS_PLUS.terms)
    assert PPO_PLUS_PLUS.name == "ppo++"
