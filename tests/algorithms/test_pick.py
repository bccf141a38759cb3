"""How a recipe picks a row and changes it; what it says wrong is one sentence with the nearest right word."""

from __future__ import annotations

import json
from typing import Any

import pytest
from known_rows import ROW, mixture, row
from pydantic import ValidationError

from rlgf.algorithms import Algorithm, Help, Mixture, RollinLength, algorithm_from
from rlgf.algorithms.pick import carried
from rlgf.errors import UserError
from rlgf.schedules import Schedule, constant


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"advantage": "gea"}, "algorithm.advantage 'gea' is not known: did you mean 'gae'"),
        ({"terms": {"policy": {"loss": "clipped_surogate"}}}, "did you mean 'clipped_surrogate'"),
    ],
)
def test_an_unknown_part_names_the_nearest(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        algorithm_from(ROW | changes)


@pytest.mark.parametrize(
    "changes",
    [{"scripts": {}}, {"script": {"rollout": "teacher"}}, {"gae_lambda": 1.5}, {"name": None}, {"gamma": 2}],
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
    changed = algorithm_from(
        {"base": "ppo++", "name": "mine", "gae_lambda": 0.5, "script": {"rollout": "policy"}}
    )
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
    changed = algorithm_from({"base": "ppo++", "help": {"probability": written}})
    assert changed == row("ppo++").model_copy(update={"help": Help(probability=expected)})


def test_base_reaches_into_nested_fields() -> None:
    changed = algorithm_from({"base": "ppo++", "help": {"length": {"high": {"start": 0.9, "end": 0.1}}}})
    assert isinstance(changed, Algorithm)
    assert changed.help.length == RollinLength(high=Schedule(start=0.9, end=0.1))


def test_base_reaches_into_the_parts_of_a_mixture() -> None:
    changed = algorithm_from(
        {
            "base": "lols",
            "explore": {"help": {"probability": 0.2, "length": {"low": 0.5}}},
            "imitate": {"gae_lambda": 1.0},
            "explore_prob": {"start": 0.1, "end": 0.9},
        }
    )
    lols = mixture("lols")
    assert isinstance(changed, Mixture)
    length = RollinLength(low=constant(0.5))
    assert changed.explore == lols.explore.model_copy(
        update={"help": Help(probability=constant(0.2), length=length)}
    )
    assert changed.imitate == lols.imitate.model_copy(update={"gae_lambda": 1.0})
    assert changed.explore_prob == Schedule(start=0.1, end=0.9)
    assert mixture("lols").explore == row("ppo++").changed(help={"probability": 0.8})


def test_a_row_of_a_mixture_can_be_named_or_have_a_base() -> None:
    cloned = {"base": "bc", "script": {"rollout": "guide"}}
    own = algorithm_from({"name": "own", "imitate": cloned, "explore": "ppo", "explore_prob": 0.5})
    assert isinstance(own, Mixture)
    assert own.imitate == algorithm_from(cloned)
    assert own.explore == row("ppo")
    changed = algorithm_from(
        {"base": "d2lols", "gamma": 0.9, "imitate": "rloo", "explore": {"base": "grpo", "gamma": 0.8}}
    )
    assert isinstance(changed, Mixture)
    assert [found.name for found in changed.rows] == ["rloo", "grpo"]
    assert [found.gamma for found in changed.rows] == [0.9, 0.8]
    assert changed.explore_prob == mixture("d2lols").explore_prob
    with pytest.raises(
        UserError, match=r"'algorithm\.imitate' is the mixture 'lols': name an algorithm of one row"
    ):
        algorithm_from({"base": "d2lols", "imitate": "lols"})


def test_the_parts_of_a_changed_mixture_are_checked() -> None:
    with pytest.raises(ValidationError, match="needs a critic"):
        algorithm_from({"base": "lols", "explore": {"terms": {"value": None}}})


def test_what_only_rows_have_is_changed_in_both_rows_of_a_mixture() -> None:
    changed = algorithm_from(
        {"base": "lols", "gamma": 0.9, "terms": {"value": {"weight": 2}}, "imitate": {"gamma": 0.8}}
    )
    assert [(found.gamma, found.terms["value"].weight) for found in changed.rows] == [
        (0.8, constant(2.0)),
        (0.9, constant(2.0)),
    ]
    with pytest.raises(ValidationError, match="gama"):
        algorithm_from({"base": "lols", "gama": 0.5})


@pytest.mark.parametrize(
    ("old", "base", "kept"),
    [
        ({"base": "ppo", "gamma": 0.9, "whiten": False}, "grpo", {"gamma": 0.9}),
        (
            {"base": "ppo++", "help": {"probability": 0.3}, "kl": {"coefficient": 0}},
            "ppo",
            {"kl": {"coefficient": 0}},
        ),
        ({"base": "ppo", "gamma": 0.9, "kl": {"target": 0.1}}, "dpo", {"gamma": 0.9}),
        ({"base": "ppo", "terms": {"value": {"weight": 30}}}, "d2lols", {"terms": {"value": {"weight": 30}}}),
        ({"base": "ppo", "terms": {"value": {"weight": 30}}}, "grpo", {}),
        ({"base": "ppo", "terms": {"policy": {"options": {"clip": 0.1}}}}, "grpo", {}),
        (
            {"terms": {"old": {"loss": "nll", "on": "references"}}},
            "grpo",
            {"terms": {"old": {"loss": "nll", "on": "references"}}},
        ),
    ],
)
def test_another_algorithm_keeps_what_belongs_to_the_task(
    old: dict[str, Any], base: str, kept: dict[str, Any]
) -> None:
    assert carried(old, base) == kept
    algorithm_from({"base": base, **kept})


def test_what_a_recipe_says_is_not_changed() -> None:
    spec = {"base": "lols", "explore": {"help": {"probability": {"start": 0.2, "end": 0.1}}}}
    before = json.dumps(spec)
    algorithm_from(spec)
    assert json.dumps(spec) == before


@pytest.mark.parametrize("base", ["ppo", "lols"])
def test_a_misspelled_term_names_the_nearest(base: str) -> None:
    with pytest.raises(
        UserError, match=rf"changes 'plicy', and '{base}' has no such term: did you mean 'policy'"
    ):
        algorithm_from({"base": base, "terms": {"plicy": {"weight": 2}}})
    more: dict[str, Any] = {"entropy": {"weight": 0.1}, "more": {"loss": "nll", "on": "references"}}
    added = algorithm_from({"base": "ppo", "terms": more})
    assert isinstance(added, Algorithm)
    assert [*added.terms] == ["policy", "value", "entropy", "more"]
