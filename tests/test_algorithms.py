"""The table of algorithms is the one that docs and papers give, and nothing incoherent gets in."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from rlgf import advantages, losses
from rlgf.algorithms import (
    ALGORITHMS,
    ESTIMATORS,
    POLICY_LOSSES,
    Algorithm,
    Mixture,
    Part,
    PolicyTerms,
    RollinLength,
    Signals,
    algorithm_from,
)
from rlgf.errors import UserError
from rlgf.schedules import Schedule, constant
from rlgf.types import Author

POLICY, GUIDE, REFERENCE = Author.POLICY, Author.GUIDE, Author.REFERENCE
ROLLIN, ROLLOUT, WHOLE = Part.ROLLIN, Part.ROLLOUT, Part.WHOLE

# (roll-in, roll-out, policy loss, it reads, value loss reads, advantage, grouped, rollin_prob)
TABLE: dict[str, tuple[Any, ...]] = {
    "bc": (None, REFERENCE, "nll", ROLLOUT, None, None, False, 0.0),
    "ppo": (None, POLICY, "clipped_surrogate", ROLLOUT, ROLLOUT, "gae", False, 0.0),
    "ppo++": (GUIDE, POLICY, "clipped_surrogate", ROLLOUT, ROLLOUT, "gae", False, 0.6),
    "aggrevated": (POLICY, GUIDE, "clipped_surrogate", ROLLIN, ROLLOUT, "gae", False, 0.8),
    "grpo": (None, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 0.0),
    "guided-grpo": (GUIDE, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 0.6),
    "rloo": (None, POLICY, "clipped_surrogate", ROLLOUT, None, "leave_one_out", True, 0.0),
    "bread": (GUIDE, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 1.0),
    "luffy": (GUIDE, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 0.0),
    "dr-po": (REFERENCE, POLICY, "clipped_surrogate", ROLLOUT, ROLLOUT, "gae", False, 1.0),
    "reverse-curriculum": (REFERENCE, POLICY, "clipped_surrogate", ROLLOUT, ROLLOUT, "gae", False, 1.0),
    "guided-rloo": (GUIDE, POLICY, "clipped_surrogate", ROLLOUT, None, "leave_one_out", True, 0.6),
    "gail": (None, POLICY, "clipped_surrogate", ROLLOUT, ROLLOUT, "gae", False, 0.0),
    "dpo": (None, POLICY, "dpo", WHOLE, None, "preference", True, 0.0),
    "guided-dpo": (GUIDE, POLICY, "dpo", WHOLE, None, "preference", True, 0.5),
    "offline-dpo": (None, REFERENCE, "dpo", WHOLE, None, "given_order", True, 0.0),
    "rebel": (None, POLICY, "rebel", WHOLE, None, "reward_difference", True, 0.0),
    "guided-rebel": (GUIDE, POLICY, "rebel", WHOLE, None, "reward_difference", True, 0.5),
    "distill": (None, POLICY, None, ROLLOUT, None, None, False, 0.0),
}
MIXTURES = {"lols": ("aggrevated", "ppo++"), "d2lols": ("aggrevated", "ppo++")}

ROW = {"name": "mine", "advantage": "gae", "value_loss_on": "rollout"}


def row(name: str) -> Algorithm:
    found = ALGORITHMS[name]
    assert isinstance(found, Algorithm)
    return found


def mixture(name: str) -> Mixture:
    found = ALGORITHMS[name]
    assert isinstance(found, Mixture)
    return found


@pytest.mark.parametrize("name", TABLE)
def test_each_row_is_the_one_of_the_design(name: str) -> None:
    found = row(name)
    assert (
        found.rollin,
        found.rollout,
        found.policy_loss,
        found.policy_loss_on,
        found.value_loss_on,
        found.advantage,
        found.grouped,
        found.rollin_prob.at(0.0),
    ) == TABLE[name]
    assert found.whiten == (found.advantage == "gae")
    whole = RollinLength(low=constant(0.0), high=constant(1.0))
    assert (found.rollin_length == whole) == (name not in ("reverse-curriculum", "luffy"))
    assert found.rollin_members == (1 if name == "luffy" else None)
    assert found.learns_as_one == (name == "luffy")
    assert found.distill_coef == constant(float(name == "distill"))
    assert found.learned_reward == (name == "gail")
    assert found.rows == (found,)
    assert found.at(3, 10, 0) is found


@pytest.mark.parametrize("name", MIXTURES)
def test_each_mixture_is_the_one_of_the_design(name: str) -> None:
    found = mixture(name)
    imitate, explore = (row(part) for part in MIXTURES[name])
    assert found.imitate == imitate
    # The original's PPO++ rolls in more often inside a mixture than alone.
    assert found.explore == explore.model_copy(update={"rollin_prob": constant(0.8)})
    assert found.rows == (found.imitate, found.explore)


def test_the_table_holds_these_and_no_others() -> None:
    assert set(ALGORITHMS) == {*TABLE, *MIXTURES}
    assert all(name == found.name for name, found in ALGORITHMS.items())
    assert all(found.summary and found.equation and found.paper for found in ALGORITHMS.values())


@pytest.mark.parametrize(
    ("name", "critics"),
    [
        ("bc", [None]),
        ("ppo", ["policy"]),
        ("ppo++", ["policy"]),
        ("aggrevated", ["guide"]),
        ("grpo", [None]),
        ("guided-rloo", [None]),
        ("lols", ["guide", "policy"]),
        ("d2lols", ["guide", "policy"]),
    ],
)
def test_a_critic_is_named_after_whose_value_it_is(name: str, critics: list[str | None]) -> None:
    assert [part.critic for part in ALGORITHMS[name].rows] == critics


def test_authors_are_those_who_write_a_part() -> None:
    assert row("ppo").authors == {POLICY}
    assert row("bc").authors == {REFERENCE}
    assert row("ppo++").authors == row("aggrevated").authors == {POLICY, GUIDE}
    assert row("aggrevated").author(ROLLIN) is POLICY
    assert row("aggrevated").author(ROLLOUT) is GUIDE


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_row_survives_its_own_dump(name: str) -> None:
    """The rows are made by copying, which validates nothing; this does."""
    found = ALGORITHMS[name]
    assert algorithm_from(found.model_dump()) == found
    assert algorithm_from(json.loads(found.model_dump_json())) == found
    assert algorithm_from(name) == algorithm_from({"base": name}) == algorithm_from(found) == found


@pytest.mark.parametrize("name", [name for name in TABLE if row(name).unguided is not None])
def test_without_its_guide_a_row_is_a_whole_one(name: str) -> None:
    unguided = row(name).unguided
    assert unguided is not None
    assert algorithm_from(unguided.model_dump()) == unguided
    assert not unguided.needs_guide
    # What only a roll-in of the guide's has a meaning for is gone with it.
    if row(name).rollin is GUIDE:
        assert (unguided.rollin_loss, unguided.rollin_members, unguided.rollin_below) == (None, None, None)
        assert unguided.rollin_length == RollinLength()


def test_a_dump_names_authors_in_words() -> None:
    dump = row("aggrevated").model_dump(mode="json")
    assert (dump["rollin"], dump["rollout"], dump["policy_loss_on"]) == ("policy", "guide", "rollin")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rollout": "guide"}, "the policy must have written them"),
        (
            {"rollin": "guide", "rollout": "policy", "policy_loss_on": "rollin"},
            "the policy must have written them",
        ),
        ({"rollout": "reference"}, "the policy must have written them"),
        ({"value_loss_on": None}, "needs a critic: set 'value_loss_on: rollout'"),
        ({"value_loss_on": "rollin", "rollin": "policy"}, "'value_loss_on' must be 'rollout'"),
        ({"policy_loss_on": "rollin"}, "'rollin' must name who writes it"),
        ({"rollin_prob": 0.5}, "'rollin' must name who writes it"),
        ({"rollin_prob": {"start": 0.5, "end": 0}}, "'rollin' must name who writes it"),
    ],
)
def test_an_incoherent_row_is_refused_with_its_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        algorithm_from(ROW | changes)


@pytest.mark.parametrize("rollin_prob", [{"start": 0, "end": 0.5}, {"start": 0, "end": 1, "shape": "step"}])
def test_a_rollin_that_comes_later_needs_an_author_too(rollin_prob: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="'rollin' must name who writes it"):
        algorithm_from(ROW | {"rollin_prob": rollin_prob})


def test_a_policy_loss_that_weighs_by_an_advantage_needs_one() -> None:
    with pytest.raises(ValidationError, match="advantage"):
        algorithm_from({"name": "mine", "policy_loss": "clipped_surrogate"})


@pytest.mark.parametrize("advantage", ["group_relative", "leave_one_out"])
def test_a_group_advantage_needs_groups(advantage: str) -> None:
    """In groups of one every advantage is 0: nothing would be learned, and nothing said."""
    try:
        found = algorithm_from({"name": "mine", "advantage": advantage})
    except ValidationError:
        return
    assert isinstance(found, Algorithm)
    assert found.grouped


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"advantage": "gea"}, "algorithm.advantage 'gea' is not known: did you mean 'gae'"),
        ({"policy_loss": "clipped_surogate"}, "did you mean 'clipped_surrogate'"),
    ],
)
def test_an_unknown_part_names_the_nearest(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        algorithm_from(ROW | changes)


@pytest.mark.parametrize(
    "changes", [{"rolout": "policy"}, {"rollout": "teacher"}, {"gae_lambda": 1.5}, {"name": None}]
)
def test_a_row_with_unknown_keys_or_values_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        algorithm_from(ROW | changes)


@pytest.mark.parametrize(
    ("base", "nearest"),
    [
        ("pppo", "ppo"),
        ("aggravated", "aggrevated"),
        ("d2lol", "d2lols"),
        ("PPO", "ppo"),
    ],
)
def test_an_unknown_base_names_the_nearest(base: str, nearest: str) -> None:
    with pytest.raises(UserError, match="is not known") as caught:
        algorithm_from(base)
    message = str(caught.value)
    assert f"'{base}'" in message
    assert f"did you mean '{nearest}'" in message
    with pytest.raises(UserError, match="is not known"):
        algorithm_from({"base": base, "gae_lambda": 0.5})


def test_base_changes_fields_and_keeps_the_rest() -> None:
    changed = algorithm_from({"base": "ppo++", "name": "mine", "gae_lambda": 0.5, "rollout": "policy"})
    assert changed == row("ppo++").model_copy(update={"name": "mine", "gae_lambda": 0.5})
    assert row("ppo++").gae_lambda == 0.95


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (0.3, constant(0.3)),
        ({"start": 0.5, "end": 0}, Schedule(start=0.5, end=0.0)),
        ({"end": 0}, Schedule(start=0.6, end=0.0)),
        (
            {"start": 1, "end": 0, "shape": "step", "over": 0.5},
            Schedule(start=1.0, end=0.0, shape="step", over=0.5),
        ),
    ],
)
def test_base_takes_schedules_in_every_form(written: Any, expected: Schedule) -> None:
    changed = algorithm_from({"base": "ppo++", "rollin_prob": written})
    assert changed == row("ppo++").model_copy(update={"rollin_prob": expected})


def test_base_reaches_into_nested_fields() -> None:
    changed = algorithm_from({"base": "ppo++", "rollin_length": {"high": {"start": 0.9, "end": 0.1}}})
    assert isinstance(changed, Algorithm)
    assert changed.rollin_length == RollinLength(high=Schedule(start=0.9, end=0.1))


def test_base_reaches_into_the_parts_of_a_mixture() -> None:
    changed = algorithm_from(
        {
            "base": "lols",
            "explore": {"rollin_prob": 0.2, "rollin_length": {"low": 0.5}},
            "imitate": {"gae_lambda": 1.0},
            "explore_prob": {"start": 0.1, "end": 0.9},
        }
    )
    lols = mixture("lols")
    assert isinstance(changed, Mixture)
    assert changed.explore == lols.explore.model_copy(
        update={"rollin_prob": constant(0.2), "rollin_length": RollinLength(low=constant(0.5))}
    )
    assert changed.imitate == lols.imitate.model_copy(update={"gae_lambda": 1.0})
    assert changed.explore_prob == Schedule(start=0.1, end=0.9)
    assert mixture("lols").explore == row("ppo++").model_copy(update={"rollin_prob": constant(0.8)})


def test_the_parts_of_a_changed_mixture_are_checked() -> None:
    with pytest.raises(ValidationError, match="needs a critic"):
        algorithm_from({"base": "lols", "explore": {"value_loss_on": None}})
    with pytest.raises(UserError, match=r"algorithm.imitate.gae_lambda"):
        algorithm_from({"base": "lols", "gae_lambda": 0.5})


def test_what_a_recipe_says_is_not_changed() -> None:
    spec = {"base": "lols", "explore": {"rollin_prob": {"start": 0.2, "end": 0.1}}}
    before = json.dumps(spec)
    algorithm_from(spec)
    assert json.dumps(spec) == before


@pytest.mark.parametrize("updates", [1, 5, 10, 24, 50, 333, 500])
def test_d2lols_imitates_for_exactly_the_first_two_fifths(updates: int) -> None:
    found = mixture("d2lols")
    for seed in range(3):
        names = [found.at(update, updates, seed).name for update in range(updates)]
        first = math.ceil(updates * 2 / 5)
        assert names == ["aggrevated"] * first + ["ppo++"] * (updates - first)


def test_lols_explores_with_probability_0_8() -> None:
    updates = 4000
    names = [mixture("lols").at(update, updates, 0).name for update in range(updates)]
    assert set(names) == {"aggrevated", "ppo++"}
    # Four standard deviations.
    assert abs(names.count("ppo++") / updates - 0.8) < 4 * math.sqrt(0.8 * 0.2 / updates)


def test_lols_draws_each_update_from_the_seed_and_its_number_alone() -> None:
    found = mixture("lols")
    forwards = [found.at(update, 200, 7) for update in range(200)]
    torch.rand(5)
    backwards = [found.at(update, 200, 7) for update in reversed(range(200))][::-1]
    assert backwards == forwards
    assert [found.at(update, 1000, 7) for update in range(200)] == forwards
    assert [found.at(update, 200, 8) for update in range(200)] != forwards


def test_explore_prob_follows_its_schedule() -> None:
    found = algorithm_from({"base": "lols", "explore_prob": {"start": 0, "end": 1}})
    explored = [found.at(update, 2000, 0).name == "ppo++" for update in range(2000)]
    quarters = [sum(explored[i : i + 500]) / 500 for i in range(0, 2000, 500)]
    assert quarters == pytest.approx([0.125, 0.375, 0.625, 0.875], abs=0.08)


@pytest.fixture
def signals() -> Signals:
    random = torch.Generator().manual_seed(0)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]], dtype=torch.bool)
    return Signals(
        token_rewards=torch.randn(4, 3, generator=random) * mask,
        rewards=torch.tensor([1.0, 0.5, -1.0, 2.5]),
        values=torch.randn(4, 3, generator=random),
        mask=mask,
        group=torch.tensor([1, 0, 1, 0]),
        gamma=0.9,
        gae_lambda=0.6,
    )


def test_the_gae_estimator_is_gae_with_the_rows_numbers(signals: Signals) -> None:
    expected = advantages.gae(signals.token_rewards, signals.values, signals.mask, 0.9, 0.6)
    for actual, wanted in zip(ESTIMATORS["gae"].estimate(signals), expected, strict=True):
        assert torch.equal(actual, wanted)


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("group_relative", advantages.group_relative),
        ("leave_one_out", advantages.leave_one_out),
    ],
)
def test_a_group_estimator_gives_every_token_its_episodes_score(
    signals: Signals, name: str, score: Any
) -> None:
    actual, targets = ESTIMATORS[name].estimate(signals)
    wanted = score(signals.token_rewards.sum(dim=1), signals.group)
    assert wanted.all()
    for episode in range(4):
        for t in range(3):
            expected = wanted[episode].item() if signals.mask[episode, t] else 0.0
            assert actual[episode, t].item() == pytest.approx(expected)
    assert not targets.any()


def test_the_policy_losses_get_their_arguments_in_order(signals: Signals) -> None:
    new, old, weights = signals.values, signals.values * 0.5 - 0.1, signals.values + 1
    terms = PolicyTerms(new, old, weights, signals.mask, 0.3, 5.0)
    surrogate, _ = POLICY_LOSSES["clipped_surrogate"](terms)
    assert surrogate == losses.clipped_surrogate(new, old, weights, signals.mask, 0.3, 5.0)[0]
    nll, _ = POLICY_LOSSES["nll"](terms)
    assert nll == losses.negative_log_likelihood(new, signals.mask, 5.0)[0]


def test_your_own_estimator_is_named_by_file_and_attribute(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from rlgf.algorithms import Estimator\nhalf = Estimator(lambda s: s, grouped=True)\n")
    found = algorithm_from({"name": "mine", "advantage": f"{file}:half"})
    assert isinstance(found, Algorithm)
    assert found.grouped
