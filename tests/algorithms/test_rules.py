"""Nothing incoherent becomes a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from known_rows import ROW
from pydantic import ValidationError

from rlgf.algorithms import Algorithm, algorithm_from
from rlgf.algorithms.spec import merged
from rlgf.algorithms.terms import SELECTORS


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"script": {"rollout": "guide"}}, "policy must have"),
        (
            {"script": {"rollin": "guide"}, "terms": {"policy": {"on": "rollin"}}},
            "policy must have",
        ),
        ({"script": {"rollout": "reference"}}, "policy must have"),
        ({"terms": {"value": None}}, "needs a critic: give 'terms' one with the loss 'value'"),
        ({"terms": {"value": {"on": "rollin"}}, "script": {"rollin": "policy"}}, "set 'on: rollout'"),
        ({"terms": {"second": {"loss": "value"}}}, "two terms train the critic"),
        ({"terms": {"policy": {"on": "rollin"}}}, "'script.rollin' must name who writes it"),
        ({"help": {"probability": 0.5}}, "'script.rollin' must name who writes it"),
        ({"help": {"probability": {"start": 0.5, "end": 0}}}, "'script.rollin' must name who writes it"),
        ({"help": {"probability": {"start": 0, "end": 0.5}}}, "'script.rollin' must name who writes it"),
        ({"terms": {"policy": None}}, "no term trains the policy"),
        ({"terms": {"policy": {"weight": 0}}}, "no term trains the policy: .* a weight above 0"),
        ({"examples": "guide"}, "set 'learned_reward: true' too"),
        ({"examples": "policy", "learned_reward": True}, "set 'examples' to reference or guide"),
        ({"terms": {"policy": {"options": {"clop": 0.1}}}}, "has no option 'clop' .it has 'clip'"),
        ({"terms": {"value": {"on": "references"}}}, "the references have none"),
        ({"advantage": None}, "reads an advantage: set 'advantage' to gae"),
        ({"terms": {"policy": {"loss": "nll"}, "value": None}}, "no term reads the advantage 'gae'"),
        (
            {"advantage": "group_relative", "terms": {"value": None}},
            "'group_size' must be 2 or more .it is 1",
        ),
    ],
)
def test_an_incoherent_row_is_refused_with_its_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        algorithm_from(merged(ROW, changes))


@pytest.mark.parametrize("base", ["dpo", "a-star-po", "opd", "bc"])
def test_a_penalty_that_nothing_reads_is_not_steered(base: str) -> None:
    steered = {"base": base, "kl": {"target": 0.1}}
    with pytest.raises(ValidationError, match=r"'kl\.target' steers a penalty that nothing reads"):
        algorithm_from(steered)
    if base == "opd":
        algorithm_from({**steered, "terms": {"kl": {}}})


@pytest.mark.parametrize("term", [{"loss": "policy_gradient"}, {"loss": "entropy", "select": "mine:gaining"}])
def test_beside_pairs_no_token_has_an_advantage(
    term: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SELECTORS, "mine:gaining", lambda advantages: advantages)
    with pytest.raises(
        ValidationError, match="the term 'more' reads advantages of tokens, and 'preference' picks pairs"
    ):
        algorithm_from({"base": "dpo", "terms": {"more": term}})


@pytest.mark.parametrize("base", ["ppo", "grpo"])
def test_a_coefficient_of_nothing_is_not_steered(base: str) -> None:
    with pytest.raises(ValidationError, match=r"'kl\.target' multiplies 'kl\.coefficient', and 0 stays 0"):
        algorithm_from({"base": base, "kl": {"coefficient": 0, "target": 0.1}})


def test_a_horizon_belongs_to_a_target() -> None:
    with pytest.raises(ValidationError, match=r"'kl\.horizon' steers nothing without 'kl\.target'"):
        algorithm_from({"base": "ppo", "kl": {"horizon": 2}})
    said = algorithm_from({"base": "ppo"}).model_dump()["kl"]
    assert algorithm_from({"base": "ppo", "kl": said}).kl.target is None, (
        "a default that is written out says nothing"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"base": "aggrevated", "help": {"probability": 0}},
            "learns from is a roll-in that is never given: set 'help.probability'",
        ),
        (
            {"base": "grpo", "script": {"rollin": "policy"}, "help": {"probability": 1}},
            "'script.rollin' and 'script.rollout' are both policy",
        ),
        (
            {"base": "bc", "script": {"rollin": "reference"}, "help": {"probability": 1}},
            "'script.rollin' and 'script.rollout' are both reference",
        ),
    ],
)
def test_a_rollin_that_nobody_could_tell_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        algorithm_from(changes)
    rollin = {"loss": "nll", "on": "rollin"}
    alone = {"base": "ppo++", "help": {"probability": 0}, "terms": {"rollin": rollin}}
    assert algorithm_from(alone), "the same without its guide"


def test_a_policy_loss_that_weighs_by_an_advantage_needs_one() -> None:
    with pytest.raises(ValidationError, match="advantage"):
        algorithm_from({"name": "mine", "terms": {"policy": {"loss": "clipped_surrogate"}}})


def test_a_lambda_that_nothing_reads_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"'gae_lambda' 0\.9 is read by the advantage 'gae' alone"):
        algorithm_from({"base": "grpo", "gae_lambda": 0.9})
    assert algorithm_from({"base": "grpo", "gamma": 0.99, "gae_lambda": 0.95})


@pytest.mark.parametrize("advantage", ["group_relative", "leave_one_out"])
def test_a_group_advantage_needs_groups(advantage: str) -> None:
    """In groups of one every advantage is 0: nothing would be learned, and nothing said."""
    terms = [{"loss": "clipped_surrogate"}]
    with pytest.raises(ValidationError, match="'group_size' must be 2 or more"):
        algorithm_from({"name": "mine", "advantage": advantage, "terms": terms})
    found = algorithm_from({"name": "mine", "advantage": advantage, "terms": terms, "group_size": 2})
    assert isinstance(found, Algorithm)
    assert found.grouped


def test_a_row_that_learns_from_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no term trains the policy"):
        algorithm_from({"name": "mine", "terms": {}})
    for beta in (-0.1, 1.1):
        with pytest.raises(ValueError, match="jsd_beta"):
            algorithm_from({"base": "distill", "terms": {"distill": {"options": {"jsd_beta": beta}}}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "dpo", "advantage": "group_relative"}, "pairs are picked by the advantages preference"),
        ({"base": "grpo", "advantage": "preference"}, "set one of each, or neither"),
        ({"base": "dpo", "terms": {"policy": {"on": "rollout"}}}, "set 'on: whole' for the term 'policy'"),
        ({"base": "grpo", "terms": {"policy": {"on": "whole"}}}, "a loss over pairs, and no other"),
        ({"base": "dpo", "whiten": True}, "no critic and no whitening"),
        ({"base": "opd", "whiten": True}, "scaled by the rewards, and it does not read those alone"),
        ({"base": "bc", "whiten": True}, "scaled by the rewards, and it does not read those alone"),
        ({"base": "vineppo", "whiten": True}, "scaled by the rewards, and it does not read those alone"),
        ({"base": "vineppo", "branches": None}, "texts branch off for an advantage"),
        ({"base": "grpo", "branches": {}}, "texts branch off for an advantage"),
        (
            {"base": "vineppo", "script": {"rollout": "reference"}},
            "the data's texts do not go on from any state",
        ),
        ({"base": "dpo", "advantage": "given_order"}, "set 'script.rollout: reference'"),
        ({"base": "offline-dpo", "script": {"rollin": "reference"}}, "leave 'script.rollin' out"),
        ({"base": "dpo", "terms": {"value": {}}}, "no critic and no whitening"),
        ({"base": "dpo", "terms": {"policy": {"options": {"beta": 0}}}}, "more than 0"),
    ],
)
def test_an_incoherent_row_of_pairs_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        algorithm_from(changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "ppo", "terms": {"rollin": {"loss": "nll", "on": "rollin"}}}, "'script.rollin' must name"),
        (
            {"base": "ppo++", "terms": {"rollin": {"loss": "clipped_surrogate", "on": "rollin"}}},
            "needs the probabilities of who wrote",
        ),
        (
            {"base": "guided-grpo", "terms": {"rollin": {"loss": "shaped_importance", "on": "rollin"}}},
            "cancel over a roll-in",
        ),
    ],
)
def test_a_rollin_loss_that_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        algorithm_from(changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "luffy", "help": {"probability": 0.5}}, "no 'help.probability'; or 'help.members: null'"),
        ({"base": "luffy", "help": {"shared": True}}, "'help.shared: false'"),
        ({"base": "grpo", "help": {"members": 1}}, "'script.rollin' must name who writes it"),
        ({"base": "luffy", "help": {"members": 0}}, "greater than or equal to 1"),
        ({"base": "luffy", "help": {"length": {"low": 0.5}}}, "leave 'low', 'high' and 'by' out"),
        ({"base": "luffy", "help": {"length": {"by": "trial"}}}, "leave 'low', 'high' and 'by' out"),
        ({"base": "luffy", "help": {"members": 5}}, "'help.members' 5 exceeds 'group_size' 4"),
        (
            {"base": "aggrevated", "help": {"length": {"whole": True}}},
            "set 'script.rollin' to guide or reference",
        ),
        ({"base": "guided-grpo", "help": {"length": {"whole": True}}}, "in groups 'help.shared: false'"),
        ({"base": "bread", "help": {"success": None}}, "set 'help.success' to what a text has to earn"),
        ({"base": "adaback", "help": {"success": None}}, "'help.length.by' counts successes"),
        ({"base": "bread", "help": {"gate": {"looks_at": "record"}}}, "set 'help.gate: {looks_at: group}'"),
        ({"base": "adaback", "help": {"shared": False}}, "set 'help.shared: true'"),
        ({"base": "adaback", "script": {"rollin": "policy"}}, "'script.rollin' of guide or reference"),
        ({"base": "bread", "help": {"gate": {"low": 0.5}}}, "'low' 0.5 must not exceed 'high' 0"),
        ({"base": "bread", "help": {"gate": {"failures": 3}}}, "set 'looks_at: record' and no 'high'"),
        ({"base": "bc", "help": {"success": 0.5}}, "needs an 'advantage' that reads a reward"),
    ],
)
def test_a_rollin_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        algorithm_from(changes)


def test_terms_of_a_list_may_be_names_alone() -> None:
    told = algorithm_from({"base": "grpo", "terms": ["clipped_surrogate", {"loss": "kl", "weight": 0.1}]})
    assert isinstance(told, Algorithm)
    assert {name: term.loss for name, term in told.terms.items()} == {
        "clipped_surrogate": "clipped_surrogate",
        "kl": "kl",
    }


def test_a_function_in_an_estimators_place_is_told_how_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def centred(signals):\n    return None\n")
    with pytest.raises(ValueError, match=r"write NAME = Estimator\(function\) in its file and name that"):
        algorithm_from({"base": "grpo", "advantage": f"{tmp_path}/own.py:centred"})
